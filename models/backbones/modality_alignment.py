"""Simple Modality Alignment for AVQA (Ko; a course project, later "AV agreement"): cross attention
and a KL term.

Fidelity (the slides, and the released `models.py` and `main.py`, which describe different models:
two presets):
- `slides`: audio and visual features, each through a linear map, are concatenated over channels and
  are keys and values of one pre-norm cross-attention block whose query is the question; KL between
  both representations in training;
- `agreement`: perceptrons per modality and for the question, one cross-attention block per
  modality, the two results max-pooled to half their width, a perceptron; a cosine term per segment
  and a KL term between the results (never negative, so the rectifier around it in the release is
  left out);
- the block is that of the release in both: one norm for its three places, a perceptron without
  activation between its two layers. The slides show a pre-norm transformer and no more;
- questions are read by `QuestionLSTM` instead of a frozen BERT or RoBERTa, so that nothing is
  downloaded;
- `norm: layer` where the release has batch norm: that mixes the questions of a batch in training,
  and the blanks of an absent modality into the statistics of the others. `batch` is the release's;
- `values: own` lets the audio branch read audio; in the release it compares with audio and reads
  visual (`visual`);
- the KL weight of the slides is not stated; both presets take the release's 0.2. Both alignment
  terms count questions whose clip is whole;
- the last layer before the answers has the width that the answer layer shared by all backbones
  reads (D for 256);
- visual is projected in `fuse`, on the mean over the map; audio in `encode`;
- a segment that cannot be read is out of the attention. In `slides` both modalities share a
  position, so an absent half is zero and the position is out when both are absent; extra tokens of
  both are concatenated in the same way;
- no notion of order in time: attention over a set of segments.
"""

from __future__ import annotations

from typing import Annotated, Literal

import torch
from pydantic import Field
from torch import Tensor, nn
from torch.nn import functional as F

from dataset.types import AUDIO, VISUAL, Batch, DataSpec
from models.backbones.base import Backbone
from models.features import Features, Fused, blank
from models.layers.attention import Extra, attend, multihead
from models.layers.question import QuestionLSTM

Norm = Literal["layer", "batch"]
Rate = Annotated[float, Field(ge=0, lt=1)]


class CrossAttention(nn.Module):
    """The released block: norm of the query alone, attention, a linear perceptron, one norm module
    throughout.
    """

    def __init__(self, dim: int, heads: int, dropout: float) -> None:
        super().__init__()
        self.attention = multihead(dim, heads, dropout)
        self.norm = nn.LayerNorm(dim)
        self.feed_forward = nn.Sequential(nn.Linear(dim, dim), nn.Linear(dim, dim), nn.ReLU())

    def forward(
        self, query: Tensor, keys: Tensor, mask: Tensor | None, extra: Extra | None, values: Tensor | None = None
    ) -> Tensor:
        """`query` (B, C) reads (B, T, C) -> (B, C)."""
        x = query.unsqueeze(1)                                                      # (B, 1, C)
        x = x + attend(self.attention, self.norm(x), keys, mask, extra, values=values)[0]
        return self.norm(self.feed_forward(self.norm(x)) + x).squeeze(1)


class FrameNorm(nn.Module):
    """A norm of (B, T, C) or (B, C): per vector, or over all vectors of the batch as released."""

    def __init__(self, dim: int, kind: Norm) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(dim) if kind == "layer" else nn.BatchNorm1d(dim)

    def forward(self, x: Tensor) -> Tensor:
        return self.norm(x.flatten(0, -2)).reshape(x.shape)


class Slides(nn.Module):
    """One cross attention over both modalities side by side."""

    def __init__(self, audio_channels: int, dim: int, heads: int, dropout: float) -> None:
        super().__init__()
        self.audio, self.visual, self.query = nn.Linear(audio_channels, dim), nn.Linear(dim, dim), nn.Linear(dim, 2 * dim)
        self.attention = CrossAttention(2 * dim, heads, dropout)
        self.classifier = nn.Sequential(nn.Linear(2 * dim, dim), nn.ReLU(), nn.Dropout(dropout))

    def forward(self, features: Features, training: bool) -> Fused:
        audio, visual = features.audio, self.visual(features.visual.mean(dim=2))    # (B, T, D)
        mask = None
        if not features.filled:
            audio, visual = blank(audio, features.mask(AUDIO)), blank(visual, features.mask(VISUAL))
            mask = features.presence.any(dim=-1)                                    # (B, T)
        extra = side_by_side(features.extra(AUDIO), features.extra(VISUAL))
        pair = torch.cat([audio, visual], dim=-1)                                   # (B, T, 2D)
        read = self.attention(self.query(features.question), pair, mask, extra)     # (B, 2D)
        losses = {"agree": divergence(audio, visual).mean(dim=1) * features.whole} if training else {}
        return Fused(self.classifier(read), losses)

    def combination(self) -> list[nn.Module]:
        return [self.classifier]


class Agreement(nn.Module):
    """One cross attention per modality; what both read shall agree."""

    def __init__(
        self, audio_channels: int, dim: int, heads: int, dropout: float, norm: Norm, values: Literal["own", "visual"]
    ) -> None:
        super().__init__()
        self.values = values
        self.audio = perceptron(audio_channels, dim, norm, dropout)
        self.visual, self.query = perceptron(dim, dim, norm, dropout), perceptron(dim, dim, norm, dropout)
        self.attend_audio, self.attend_visual = (CrossAttention(dim, heads, dropout) for _ in range(2))
        self.classifier = nn.Sequential(
            nn.Linear(dim, dim), nn.ReLU(), nn.Linear(dim, dim // 2), nn.Linear(dim // 2, dim), nn.LeakyReLU(),
            nn.Dropout(dropout),
        )

    def forward(self, features: Features, training: bool) -> Fused:
        audio, visual = features.audio, self.visual(features.visual.mean(dim=2))    # (B, T, D)
        question = self.query(features.question)                                    # (B, D)
        heard, seen = features.mask(AUDIO), features.mask(VISUAL)
        extra_audio, extra_visual = features.extra(AUDIO), features.extra(VISUAL)
        vq = self.attend_visual(question, visual, seen, extra_visual)               # (B, D)
        if self.values == "own":
            aq = self.attend_audio(question, audio, heard, extra_audio)             # (B, D)
        else:
            both = None if heard is None else heard & seen
            extra = None if extra_audio is None else (extra_audio[0], extra_visual[1])
            aq = self.attend_audio(question, audio, both, extra, values=visual)
        pooled = F.adaptive_max_pool1d(torch.cat([aq, vq], dim=-1), aq.shape[-1])   # (B, D), of neighbouring channels
        losses = {}
        if training:
            distance = 0.5 - F.cosine_similarity(audio.float(), visual.float(), dim=-1)         # (B, T)
            losses = {"align": distance.mean(dim=1) * features.whole, "agree": divergence(aq, vq) * features.whole}
        return Fused(self.classifier(pooled), losses, (aq, vq))

    def combination(self) -> list[nn.Module]:
        return [self.classifier]


class ModalityAlignment(Backbone):
    """The model of the slides, or that of the released code.

    Options: `preset`; `heads`, `dropout` of attention and perceptrons; for `agreement` `norm` and
    `values`; `agree_weight` of the KL term and, for `agreement`, `align_weight` of the cosine term.
    """

    def __init__(
        self,
        spec: DataSpec,
        *,
        preset: Literal["slides", "agreement"] = "slides",
        heads: Annotated[int, Field(ge=1)] = 4,
        dropout: Rate = 0.5,
        norm: Norm = "layer",
        values: Literal["own", "visual"] = "own",
        agree_weight: Annotated[float, Field(ge=0)] = 0.2,
        align_weight: Annotated[float, Field(ge=0)] = 0.5,
    ) -> None:
        super().__init__()
        self.dim = dim = spec.visual_channels
        self.loss_weights = {"agree": agree_weight, "align": align_weight}
        self.has_summaries = preset == "agreement"
        self.question = QuestionLSTM(spec.vocabulary, dim)
        if preset == "slides":
            self.model = Slides(spec.audio_channels, dim, heads, dropout)
        else:
            self.model = Agreement(spec.audio_channels, dim, heads, dropout, norm, values)

    def encode(self, batch: Batch) -> Features:
        states, question = self.question(batch.words)
        return Features(
            audio=self.model.audio(batch.audio),                                    # (B, T, D)
            visual=batch.visual.flatten(3).transpose(2, 3),                         # (B, T, N, D)
            words=states, word_mask=batch.words != 0, question=question,
            question_id=batch.question_id, presence=batch.presence,
        )

    def encode_text(self, words: Tensor) -> Tensor:
        return self.question(words)[1]                                              # (B, D)

    def fuse(self, features: Features) -> Fused:
        return self.model(features, self.training)

    def combination(self) -> list[nn.Module]:
        return self.model.combination()


def divergence(p: Tensor, q: Tensor) -> Tensor:
    """KL(softmax(p) || softmax(q)) over the last axis; never negative."""
    log_p, log_q = F.log_softmax(p.float(), dim=-1), F.log_softmax(q.float(), dim=-1)
    return F.kl_div(log_q, log_p, reduction="none", log_target=True).sum(dim=-1)


def side_by_side(audio: Extra | None, visual: Extra | None) -> Extra | None:
    """The extra tokens of both streams, (B, P, 2D)."""
    if audio is None or visual is None:
        return None
    return torch.cat([audio[0], visual[0]], dim=-1), torch.cat([audio[1], visual[1]], dim=-1)


def perceptron(channels: int, dim: int, norm: Norm, dropout: float) -> nn.Sequential:
    return nn.Sequential(
        nn.Linear(channels, dim), FrameNorm(dim, norm), nn.ReLU(), nn.Dropout(dropout), nn.Linear(dim, dim)
    )
