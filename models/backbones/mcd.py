"""MCD, mutual correlation distillation: the question, with audio-visual clues attached, answers.

Ye, Yu, Liu, "Answering Diverse Questions via Text Attached with Key Audio-Visual Clues",
arXiv 2403.06679.

Fidelity. Abstract, overview and captions fix the parts and their order. The equations, sizes and
weights of the paper were not at hand, and the repository that it names holds a figure and no code,
so every number below is this project's choice.
- projections of both modalities and a question encoder (overview). The question is AVST's encoder;
  audio is projected in `encode`, visual in `fuse` on the mean over the map, so that a method sees
  the map itself;
- association blocks: self-attention whose residual takes in a small amount of the other modality
  (abstract, captions: "soft association"), one learned scalar per block and modality;
- the pooled streams of the last block are contrasted in both directions; questions on the same
  video are no negatives of each other. The contrast is direct, without further projections. Since a
  block has mixed each stream into the other, the contrast can be met without any correspondence
  between them; contrasting before the blocks would not be what the captions say ("at the attention
  layer");
- one aggregator for both modalities and both levels: the question attends to the projected and to
  the associated features, the early and the late correlation, and each time brings back a clue
  (abstract, captions). Four clues and the question make the combinatorial question embedding.
  Each clue attends to the question's words, as the paper's optional branch attends to its key words
  and type; which words are key ones is not marked in every data set, so all are read;
- semantic approximation: the question is drawn to both modalities in a latent space by contrast, as
  the captions say of the distillation. The features that it is drawn to are detached before their
  projections, which are trained: the question learns from them, not they from it;
- the answer is read off the question embedding alone (abstract: no decision-level integration);
- both own losses count questions whose clip is whole, so no stand-in is aligned. A batch of 4 gives
  few negatives;
- a modality that cannot be read has zero clues. Prompts are read wherever its stream is attended
  to;
- like AVST it has no notion of order in time: attention and means only.
"""

from __future__ import annotations

from typing import Annotated

import torch
from pydantic import Field
from torch import Tensor, nn

from dataset.types import Batch, DataSpec
from models.backbones.base import Backbone, encoded, streams
from models.features import Features, Fused
from models.layers.attention import Stream, attend, attention_shares, multihead
from models.layers.contrast import info_nce
from models.layers.question import QuestionLSTM

Weight = Annotated[float, Field(ge=0)]
BLOCKS, HEADS, DROPOUT = 2, 4, 0.1       # of association; these numbers and the next ones are ours
MIX = 0.1                                # how much of the other modality a block starts to take in
LATENT, TEMPERATURE = 128, 0.07          # of the contrasts
ANSWER_DROPOUT = 0.5                     # before the answer


class Association(nn.Module):
    """One block of a modality: self-attention plus a little of the other one, then a perceptron."""

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.own = multihead(dim, HEADS, DROPOUT)
        self.other = multihead(dim, HEADS, DROPOUT)
        self.mix = nn.Parameter(torch.tensor(MIX))
        self.norm, self.norm_out = nn.LayerNorm(dim), nn.LayerNorm(dim)
        self.feed_forward = perceptron(dim)

    def forward(self, x: Stream, y: Stream) -> Stream:
        """`x` after it has read itself and, by the learned amount, `y`."""
        own, other = attend(self.own, x.tokens, x), attend(self.other, x.tokens, y)
        mixed = self.norm(x.tokens + own + self.mix * other)                        # (B, T, D)
        return x._replace(tokens=self.norm_out(mixed + self.feed_forward(mixed)))


class Aggregator(nn.Module):
    """The question reads a stream and the words: one clue per stream, the same weights for all."""

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.attention = multihead(dim, HEADS, DROPOUT)
        self.norm, self.norm_out = nn.LayerNorm(dim), nn.LayerNorm(dim)
        self.feed_forward = perceptron(dim)
        self.objects = multihead(dim, HEADS, DROPOUT)

    def forward(self, question: Tensor, stream: Stream, words: Stream) -> Tensor:
        """`question` (B, D) -> clue (B, D); zeros where the stream has nothing to read."""
        query = question.unsqueeze(1)                                               # (B, 1, D)
        clue = self.norm(query + attend(self.attention, query, stream))
        clue = self.norm_out(clue + self.feed_forward(clue))
        clue = clue + attend(self.objects, clue, words)
        clue = clue.squeeze(1)                                                      # (B, D)
        if stream.mask is None or stream.extra is not None:
            return clue
        return torch.where(stream.mask.any(dim=1, keepdim=True), clue, 0.0)


class MCD(Backbone):
    """Association, aggregation into the question, semantic approximation.

    Options: the weights of the contrast of both streams and of that of each with the question.
    """

    has_summaries = True

    def __init__(self, spec: DataSpec, *, contrast_weight: Weight = 0.5, distil_weight: Weight = 0.5) -> None:
        super().__init__()
        self.dim = dim = spec.visual_channels
        self.loss_weights = {"contrast": contrast_weight, "distil": distil_weight}
        self.question = QuestionLSTM(spec.vocabulary, dim)
        self.audio = nn.Linear(spec.audio_channels, dim)
        self.visual = nn.Linear(dim, dim)
        self.associate_audio = nn.ModuleList(Association(dim) for _ in range(BLOCKS))
        self.associate_visual = nn.ModuleList(Association(dim) for _ in range(BLOCKS))
        self.aggregate = Aggregator(dim)
        self.combine, self.norm = nn.Linear(4 * dim, dim), nn.LayerNorm(dim)
        self.latent_audio, self.latent_visual, self.latent_question = (projection(dim) for _ in range(3))
        self.answer = nn.Sequential(nn.Dropout(ANSWER_DROPOUT), nn.GELU(), nn.Linear(dim, dim), nn.GELU())

    def encode(self, batch: Batch) -> Features:
        return encoded(batch, self.audio(batch.audio), self.question(batch.words))

    def encode_text(self, words: Tensor) -> Tensor:
        return self.question(words)[1]                                              # (B, D)

    def fuse(self, features: Features) -> Fused:
        low_audio, low_visual = streams(features, self.visual(features.visual.mean(dim=2)))
        audio, visual, words = low_audio, low_visual, Stream(features.words, features.word_mask)
        for hear, see in zip(self.associate_audio, self.associate_visual, strict=True):
            audio, visual = hear(audio, visual), see(visual, audio)                 # both from the block's inputs
        read = (low_audio, audio, low_visual, visual)
        clues = [self.aggregate(features.question, stream, words) for stream in read]
        embedding = self.norm(features.question + self.combine(torch.cat(clues, dim=-1)))       # (B, D)
        losses = self.losses(features, audio, visual, embedding) if self.training else {}
        summaries = (clues[0] + clues[1]) / 2, (clues[2] + clues[3]) / 2
        attention = self.attention(features.question, *read) if features.wants_attention else None
        return Fused(self.answer(embedding), losses, summaries, attention)

    def attention(self, question: Tensor, *read: Stream) -> dict[str, Tensor]:
        """As `Fused.attention`: of each stream the mean over both of its levels."""
        low, high, low_visual, high_visual = (
            attention_shares(self.aggregate.attention, question.unsqueeze(1), stream).squeeze(1) for stream in read)
        return {"audio": (low + high) / 2, "visual": (low_visual + high_visual) / 2}

    def combination(self) -> list[nn.Module]:
        return [self.combine, self.norm, self.answer]

    def losses(self, features: Features, audio: Stream, visual: Stream, embedding: Tensor) -> dict[str, Tensor]:
        """(B,) each: contrast of both streams, and of the question embedding (B, D) with either."""
        heard, seen = audio.mean(), visual.mean()                                   # (B, D)

        def contrast(anchor: Tensor, partner: Tensor) -> Tensor:
            return info_nce(anchor, partner, features.video, features.whole, TEMPERATURE)

        asked = self.latent_question(embedding)                                     # (B, latent)
        return {
            "contrast": (contrast(heard, seen) + contrast(seen, heard)) / 2,
            "distil": contrast(asked, self.latent_audio(heard.detach()))
            + contrast(asked, self.latent_visual(seen.detach())),
        }


def perceptron(dim: int) -> nn.Sequential:
    return nn.Sequential(nn.Linear(dim, 4 * dim), nn.GELU(), nn.Dropout(DROPOUT), nn.Linear(4 * dim, dim))


def projection(dim: int) -> nn.Sequential:
    return nn.Sequential(nn.Linear(dim, LATENT), nn.GELU(), nn.Linear(LATENT, LATENT))
