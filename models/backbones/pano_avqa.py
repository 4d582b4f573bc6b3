"""Pano-AVQA's LaViT: three transformers that read each other in a ring (Yun et al., ICCV 2021).

Fidelity (the paper, and the official `lavit.py`, `input.py`, `attention.py`, `pooler.py`):
- post-norm layers with GELU, weights from N(0, 0.02), layer norms with 1e-12; language, visual and
  audio layers, then cross layers in which language reads audio, audio reads visual and visual reads
  language, all from the layer's inputs, before each stream reads itself; the first token of each
  stream is pooled;
- one token per segment and stream with a mean token in front, where the original has detected
  objects and sounds: the data have no boxes. The coordinate of a token is its time, (t / T, 1 / T),
  entering as the published ones do;
- words are embedded from scratch over the data set's vocabulary. The default has 3, 2, 2 and 3
  layers of the features' width D and 8 heads, for 32 thousand questions. The `layers_*` keys give
  the published 9, 5, 5 and 5 layers, not their width of 768, 12 heads and BERT's weights;
- the language layers are part of `encode`, so that a method finds a question vector, the first
  token's;
- the answer layers end at width D, which the answer layer shared by all backbones reads (the
  release: 6 D);
- no grounding of boxes and no pre-training tasks. The published masks are dropped before the
  encoder; here padding and what cannot be read are out of every attention. The mean token of a
  stream without anything to read is the mean of nothing, zero, so that its embedding is a learned
  vector;
- such a layer norm makes the gradient of a blank token a million times larger, and so does every
  norm behind it; here a blank token hands no gradient on;
- prompts are read by every attention to their stream, as keys and values only.
"""

from __future__ import annotations

from typing import Annotated

import torch
from pydantic import Field
from torch import Tensor, nn

from dataset.types import Batch, DataSpec
from models.backbones.base import Backbone, encoded, streams
from models.features import Features, Fused
from models.layers.attention import Stream, attend, attention_shares, masked_mean, multihead, shares

Layers = Annotated[int, Field(ge=1, le=48)]
HEADS = 8                                 # published: 12 of width 768
EXPANSION, DROPOUT = 4, 0.1               # as in BERT: width of the perceptrons over that of the stream


class Norm(nn.LayerNorm):
    """BERT's layer norm. A blank token (all channels equal) hands no gradient on."""

    def __init__(self, dim: int) -> None:
        super().__init__(dim, eps=1e-12)

    def forward(self, x: Tensor) -> Tensor:
        blank = (x == x[..., :1]).all(dim=-1, keepdim=True)
        return super().forward(torch.where(blank, x.detach(), x))


class Residual(nn.Module):
    """Attention with dropout, residual and norm."""

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.attention = multihead(dim, HEADS, DROPOUT)
        self.dropout, self.norm = nn.Dropout(DROPOUT), Norm(dim)

    def forward(self, x: Stream, y: Stream) -> Stream:
        """`x` after reading `y`."""
        return x._replace(tokens=self.norm(x.tokens + self.dropout(attend(self.attention, x.tokens, y))))


class Layer(nn.Module):
    """A transformer layer of one stream (BERT's)."""

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.read_own = Residual(dim)
        self.feed_forward = nn.Sequential(
            nn.Linear(dim, EXPANSION * dim), nn.GELU(), nn.Linear(EXPANSION * dim, dim), nn.Dropout(DROPOUT)
        )
        self.norm = Norm(dim)

    def forward(self, x: Stream) -> Stream:
        x = self.read_own(x, x)
        return x._replace(tokens=self.norm(x.tokens + self.feed_forward(x.tokens)))


class CrossBranch(nn.Module):
    """One stream's part of a cross layer: it reads another stream, then itself."""

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.read_other = Residual(dim)
        self.layer = Layer(dim)

    def forward(self, x: Stream, y: Stream) -> Stream:
        return self.layer(self.read_other(x, y))


class CrossLayer(nn.Module):
    """Language reads audio, audio reads visual, visual reads language."""

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.language, self.audio, self.visual = (CrossBranch(dim) for _ in range(3))

    def forward(self, language: Stream, audio: Stream, visual: Stream) -> tuple[Stream, Stream, Stream]:
        return self.language(language, audio), self.audio(audio, visual), self.visual(visual, language)

    def attention(self, language: Stream, audio: Stream, visual: Stream) -> dict[str, Tensor]:
        """As `Fused.attention`: how the first token of language reads sound, that of sound the
        picture; the mean tokens are left out.
        """
        pairs = {"audio": (self.language, language, audio), "visual": (self.audio, audio, visual)}
        read = {name: attention_shares(branch.read_other.attention, x.tokens[:, :1], y).squeeze(1)
                for name, (branch, x, y) in pairs.items()}
        return {name: shares(read[name][:, 1:], y.readable[:, 1:]) for name, (_, _, y) in pairs.items()}


class Tokens(nn.Module):
    """Segments to tokens: the mean of feature and time, each projected and normalised.

    The token of both means comes first and stands for all.
    """

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.feature = nn.Sequential(nn.Linear(dim, dim), Norm(dim))
        self.time = nn.Sequential(nn.Linear(2, dim), Norm(dim))
        self.dropout = nn.Dropout(DROPOUT)

    def forward(self, segments: Stream) -> Stream:
        """T segments -> 1 + T tokens."""
        features, mask = segments.tokens, segments.readable
        time = time_coordinates(features.shape[1], features).expand(len(features), -1, -1)
        tokens = (self.feature(with_mean(features, mask)) + self.time(with_mean(time, mask))) / 2
        return Stream(self.dropout(tokens), behind_first(mask), segments.extra)


class PanoAVQA(Backbone):
    """LaViT with time in place of space.

    Options: `layers_language`, `layers_visual`, `layers_audio`, `layers_cross`.
    """

    has_summaries = True

    def __init__(
        self,
        spec: DataSpec,
        *,
        layers_language: Layers = 3,
        layers_visual: Layers = 2,
        layers_audio: Layers = 2,
        layers_cross: Layers = 3,
    ) -> None:
        super().__init__()
        self.dim = dim = spec.visual_channels
        self.embedding = nn.Embedding(spec.vocabulary + 1, dim)                     # the last one is the first token
        self.position = nn.Embedding(spec.words + 1, dim)
        self.norm_words, self.dropout = Norm(dim), nn.Dropout(DROPOUT)
        self.language = nn.ModuleList(Layer(dim) for _ in range(layers_language))
        self.project_audio = nn.Linear(spec.audio_channels, dim)
        self.audio_tokens, self.visual_tokens = (Tokens(dim) for _ in range(2))
        self.audio = nn.ModuleList(Layer(dim) for _ in range(layers_audio))
        self.visual = nn.ModuleList(Layer(dim) for _ in range(layers_visual))
        self.cross = nn.ModuleList(CrossLayer(dim) for _ in range(layers_cross))
        self.pool_language, self.pool_audio, self.pool_visual = (
            nn.Sequential(nn.Linear(dim, dim), nn.Tanh()) for _ in range(3)
        )
        self.answer = nn.Sequential(nn.Linear(3 * dim, dim), nn.GELU(), Norm(dim))
        self.apply(initialise)

    def encode(self, batch: Batch) -> Features:
        states = self.read_words(batch.words)                                       # (B, 1 + L, D)
        return encoded(batch, self.project_audio(batch.audio), (states[:, 1:], states[:, 0]))

    def encode_text(self, words: Tensor) -> Tensor:
        return self.read_words(words)[:, 0]                                         # (B, D)

    def read_words(self, words: Tensor) -> Tensor:
        """`words` (B, L) -> (B, 1 + L, D); positions beyond those of training share the last."""
        first = torch.full_like(words[:, :1], self.embedding.num_embeddings - 1)
        indices = torch.cat([first, words], dim=1)                                  # (B, 1 + L)
        places = torch.arange(indices.shape[1], device=words.device).clamp_max(self.position.num_embeddings - 1)
        tokens = self.dropout(self.norm_words(self.embedding(indices) + self.position(places)))
        stream = Stream(tokens, behind_first(words != 0))
        for layer in self.language:
            stream = layer(stream)
        return stream.tokens

    def fuse(self, features: Features) -> Fused:
        heard, seen = streams(features, features.visual.mean(dim=2))
        audio, visual = self.audio_tokens(heard), self.visual_tokens(seen)
        for layer in self.audio:
            audio = layer(audio)
        for layer in self.visual:
            visual = layer(visual)
        states = torch.cat([features.question.unsqueeze(1), features.words], dim=1)             # (B, 1 + L, D)
        language = Stream(states, behind_first(features.word_mask))
        attention = None
        for layer in self.cross:
            if features.wants_attention and layer is self.cross[-1]:
                attention = layer.attention(language, audio, visual)
            language, audio, visual = layer(language, audio, visual)
        summaries = self.pool_audio(audio.tokens[:, 0]), self.pool_visual(visual.tokens[:, 0])
        pooled = torch.cat([self.pool_language(language.tokens[:, 0]), *summaries], dim=-1)     # (B, 3D)
        return Fused(self.answer(pooled), summaries=summaries, attention=attention)

    def combination(self) -> list[nn.Module]:
        """Also what language reads in the last cross layer: it reaches the answer, no summary."""
        return [self.cross[-1].language, self.pool_language, self.answer]


def with_mean(values: Tensor, mask: Tensor) -> Tensor:
    """`values` (B, T, C) behind the mean of those that `mask` (B, T) leaves: (B, 1 + T, C)."""
    return torch.cat([masked_mean(values, mask).unsqueeze(1), values], dim=1)


def behind_first(mask: Tensor) -> Tensor:
    """`mask` (B, S) behind a first token that may always be read: (B, 1 + S)."""
    return torch.cat([torch.ones_like(mask[:, :1]), mask], dim=1)


def time_coordinates(segments: int, like: Tensor) -> Tensor:
    """Start and duration of every segment as shares of the clip, (1, T, 2)."""
    start = torch.arange(segments, device=like.device, dtype=like.dtype) / segments
    return torch.stack([start, torch.full_like(start, 1 / segments)], dim=-1).unsqueeze(0)


def initialise(module: nn.Module) -> None:
    """BERT's: weights from N(0, 0.02), biases zero; an attention stacks three projections."""
    if isinstance(module, nn.Linear | nn.Embedding):
        nn.init.normal_(module.weight, std=0.02)
        if isinstance(module, nn.Linear):
            nn.init.zeros_(module.bias)
    elif isinstance(module, nn.MultiheadAttention):
        nn.init.normal_(module.in_proj_weight, std=0.02)
