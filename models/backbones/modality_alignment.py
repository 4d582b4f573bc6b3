"""Simple Modality Alignment for AVQA (Ko; a course project, later "AV agreement").

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
- a layer norm where the release has batch norm: that mixes the questions of a batch in training,
  and the blanks of an absent modality into the statistics of the others;
- the audio branch reads audio; in the release it compares with audio and reads visual;
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

from collections import OrderedDict
from typing import Annotated, Literal

import torch
from pydantic import Field
from torch import Tensor, nn
from torch.nn import functional as F

from dataset.types import MODALITIES, Batch, DataSpec
from models.backbones.base import Backbone, encoded, streams
from models.features import Features, Fused
from models.layers.attention import Extra, Stream, attend, attention_shares, multihead
from models.layers.question import QuestionLSTM

HEADS, DROPOUT = 4, 0.5                  # of attention and perceptrons, as released
Weight = Annotated[float, Field(ge=0)]


class CrossAttention(nn.Module):
    """The released block: norm of the query, attention, a linear perceptron; one norm for all."""

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.attention = multihead(dim, HEADS, DROPOUT)
        self.norm = nn.LayerNorm(dim)
        self.feed_forward = nn.Sequential(nn.Linear(dim, dim), nn.Linear(dim, dim), nn.ReLU())

    def forward(self, query: Tensor, stream: Stream) -> Tensor:
        """`query` (B, C) reads a stream of C channels -> (B, C)."""
        x = query.unsqueeze(1)                                                      # (B, 1, C)
        x = x + attend(self.attention, self.norm(x), stream)
        return self.norm(self.feed_forward(self.norm(x)) + x).squeeze(1)

    def shares(self, query: Tensor, stream: Stream) -> Tensor:
        """(B, T) of the attention."""
        return attention_shares(self.attention, self.norm(query.unsqueeze(1)), stream).squeeze(1)


class Slides(nn.Module):
    """One cross attention over both modalities side by side."""

    def __init__(self, audio_channels: int, dim: int) -> None:
        super().__init__()
        self.audio, self.visual = nn.Linear(audio_channels, dim), nn.Linear(dim, dim)
        self.query = nn.Linear(dim, 2 * dim)
        self.attention = CrossAttention(2 * dim)
        self.classifier = nn.Sequential(nn.Linear(2 * dim, dim), nn.ReLU(), nn.Dropout(DROPOUT))

    def forward(self, features: Features, training: bool) -> Fused:
        pair = streams(features, self.visual(features.visual.mean(dim=2)))
        audio, visual = (s.tokens if features.filled else torch.where(s.mask[..., None], s.tokens, 0.0) for s in pair)
        mask = None if features.filled else features.presence.any(dim=-1)           # (B, T)
        both = Stream(torch.cat([audio, visual], dim=-1), mask, side_by_side(*(s.extra for s in pair)))
        question = self.query(features.question)
        read = self.attention(question, both)                                       # (B, 2D)
        losses = {"agree": divergence(audio, visual).mean(dim=1) * features.whole} if training else {}
        attention = None
        if features.wants_attention:
            attention = dict.fromkeys(MODALITIES, self.attention.shares(question, both))    # they share a position
        return Fused(self.classifier(read), losses, attention=attention)

    def combination(self) -> list[nn.Module]:
        return [self.classifier]


class Agreement(nn.Module):
    """One cross attention per modality; what both read shall agree."""

    def __init__(self, audio_channels: int, dim: int) -> None:
        super().__init__()
        self.audio = perceptron(audio_channels, dim)
        self.visual, self.query = perceptron(dim, dim), perceptron(dim, dim)
        self.attend_audio, self.attend_visual = (CrossAttention(dim) for _ in range(2))
        self.classifier = nn.Sequential(
            nn.Linear(dim, dim), nn.ReLU(), nn.Linear(dim, dim // 2), nn.Linear(dim // 2, dim), nn.LeakyReLU(),
            nn.Dropout(DROPOUT),
        )

    def forward(self, features: Features, training: bool) -> Fused:
        audio, visual = streams(features, self.visual(features.visual.mean(dim=2)))
        question = self.query(features.question)                                    # (B, D)
        vq, aq = self.attend_visual(question, visual), self.attend_audio(question, audio)
        pooled = F.adaptive_max_pool1d(torch.cat([aq, vq], dim=-1), aq.shape[-1])   # (B, D), of neighbouring channels
        losses = {}
        if training:
            distance = 0.5 - F.cosine_similarity(audio.tokens.float(), visual.tokens.float(), dim=-1)     # (B, T)
            losses = {"align": distance.mean(dim=1) * features.whole, "agree": divergence(aq, vq) * features.whole}
        attention = None
        if features.wants_attention:
            attention = {"audio": self.attend_audio.shares(question, audio),
                         "visual": self.attend_visual.shares(question, visual)}
        return Fused(self.classifier(pooled), losses, (aq, vq), attention)

    def combination(self) -> list[nn.Module]:
        return [self.classifier]


class ModalityAlignment(Backbone):
    """The model of the slides, or that of the released code.

    Options: `preset`; `agree_weight` of the KL term and, for `agreement`, `align_weight` of the
    cosine term.
    """

    def __init__(
        self,
        spec: DataSpec,
        *,
        preset: Literal["slides", "agreement"] = "slides",
        agree_weight: Weight = 0.2,
        align_weight: Weight = 0.5,
    ) -> None:
        super().__init__()
        self.dim = dim = spec.visual_channels
        self.loss_weights = {"agree": agree_weight, "align": align_weight}
        self.has_summaries = preset == "agreement"
        self.question = QuestionLSTM(spec.vocabulary, dim)
        self.model = (Slides if preset == "slides" else Agreement)(spec.audio_channels, dim)

    def encode(self, batch: Batch) -> Features:
        return encoded(batch, self.model.audio(batch.audio), self.question(batch.words))

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


def perceptron(channels: int, dim: int) -> nn.Sequential:
    norm = nn.Sequential(OrderedDict(norm=nn.LayerNorm(dim)))                       # as saved weights name it
    return nn.Sequential(nn.Linear(channels, dim), norm, nn.ReLU(), nn.Dropout(DROPOUT), nn.Linear(dim, dim))
