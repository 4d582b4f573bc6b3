"""AVST, the spatio-temporal grounding network of MUSIC-AVQA (Li et al., CVPR 2022), the paper's
baseline.

Fidelity (all from the official `net_grd_avst`):
- question, audio, spatial grounding, match head, temporal grounding, fusion: as released, without
  the layers that are built and never used (a ResNet-18 and eight others);
- the means that the released code adds to the temporal attention are kept, though its figure omits
  them;
- an absent segment has no entry in the temporal attention's input other than what the method wrote
  there, and none at all, in its mean neither, where the method says that nothing stands in for it;
- negatives for the match loss: `in_batch` takes the map of another question's video from the batch,
  which costs no reading; `other_video` draws every segment from other videos as released;
- the visual map must have as many channels as the model is wide (512 as released); with other data
  D follows.
"""

from __future__ import annotations

from typing import Annotated, Literal

import torch
from pydantic import Field
from torch import Tensor, nn
from torch.nn import functional as F

from dataset.types import AUDIO, VISUAL, Batch, DataSpec
from models.backbones.base import Backbone
from models.features import Features, Fused
from models.layers.attention import AttentionBlock, Extra, masked_mean
from models.layers.question import QuestionLSTM


class SpatialGrounding(nn.Module):
    """Audio attends to the visual tokens of its own segment (CVPR 2022, section 4.2)."""

    def __init__(self, dim: int, temperature: float) -> None:
        super().__init__()
        self.temperature = temperature
        self.project = nn.Linear(2 * dim, dim)

    def forward(self, audio: Tensor, visual: Tensor) -> Tensor:
        """`audio` (B, T, D), `visual` (B, T, N, D) -> grounded visual (B, T, D).

        The tokens are normalised only inside two matrix products, so no second map is kept.
        """
        query = F.normalize(audio, dim=-1).unsqueeze(-1)                            # (B, T, D, 1)
        scale = torch.linalg.vector_norm(visual, dim=-1).clamp_min(1e-12).reciprocal()      # (B, T, N)
        score = (visual @ query).squeeze(-1) * scale                                # (B, T, N) cosines
        weight = torch.softmax(score / self.temperature, dim=-1)                    # (B, T, N)
        mean_weight = torch.full_like(weight, 1 / visual.shape[2])
        pooled = torch.stack([mean_weight, weight * scale], dim=2) @ visual         # (B, T, 2, D)
        return self.project(torch.tanh(pooled.flatten(2)))                          # (B, T, D)


class TemporalGrounding(AttentionBlock):
    """The question attends to the T segment vectors of one stream; their mean is added."""

    def forward(
        self, question: Tensor, segments: Tensor, mask: Tensor | None = None, extra: Extra | None = None
    ) -> Tensor:
        """`question` (B, D), `segments` (B, T, D), `mask` (B, T), `extra` as in `attend` -> (B, D).
        """
        attended, _ = super().forward(question.unsqueeze(1), segments, mask, extra)
        return attended.squeeze(1) + masked_mean(segments, mask)                    # (B, D)


class AVST(Backbone):
    """Spatial grounding per segment, temporal grounding per stream, fusion by the question.

    Options: `heads`, `dropout` of the temporal attentions; `temperature` of the spatial softmax (1
    as released); `negatives` and `match_weight` of the match loss (0.5 as released), which counts
    in every view in which a stand-in was written for what is absent, as released, or in the
    complete one alone (`match_views`).
    """

    has_summaries = True

    def __init__(
        self,
        spec: DataSpec,
        *,
        heads: Annotated[int, Field(ge=1)] = 4,
        dropout: Annotated[float, Field(ge=0, lt=1)] = 0.1,
        temperature: Annotated[float, Field(gt=0)] = 1.0,
        match_weight: Annotated[float, Field(ge=0)] = 0.5,
        negatives: Literal["in_batch", "other_video"] = "in_batch",
        match_views: Literal["all", "complete"] = "all",
    ) -> None:
        super().__init__()
        self.dim = dim = spec.visual_channels
        self.loss_weights = {"match": match_weight}
        self.negatives = negatives
        self.match_views = match_views
        self.needs_negatives = negatives == "other_video" and match_weight > 0
        self.question = QuestionLSTM(spec.vocabulary, dim)
        self.audio = nn.Sequential(nn.Linear(spec.audio_channels, dim), nn.ReLU(), nn.Linear(dim, dim))
        self.spatial = SpatialGrounding(dim, temperature)
        self.match = nn.Sequential(
            nn.Linear(2 * dim, dim), nn.ReLU(), nn.Linear(dim, dim // 2), nn.ReLU(),
            nn.Linear(dim // 2, dim // 4), nn.ReLU(), nn.Linear(dim // 4, 2),
        )
        self.temporal_audio = TemporalGrounding(dim, heads, dropout)
        self.temporal_visual = TemporalGrounding(dim, heads, dropout)
        self.fusion = nn.Linear(2 * dim, dim)

    def encode(self, batch: Batch) -> Features:
        """The question and audio layers; the visual map passes through as tokens, without a copy.
        """
        states, question = self.question(batch.words)
        features = Features(
            audio=self.audio(batch.audio),                                          # (B, T, D)
            visual=as_tokens(batch.visual),                                         # (B, T, N, D)
            words=states,
            word_mask=batch.words != 0,
            question=question,
            question_id=batch.question_id,
            presence=batch.presence,
        )
        if not (self.training and self.loss_weights["match"] > 0):
            return features
        if batch.negative_visual is not None:
            valid = torch.ones(len(batch), dtype=torch.bool, device=batch.words.device)
            return features.with_(negative=as_tokens(batch.negative_visual), negative_valid=valid)
        other, valid = other_video(batch.video, batch.presence)
        return features.with_(negative=features.visual[other], negative_valid=valid)

    def encode_text(self, words: Tensor) -> Tensor:
        return self.question(words)[1]                                              # (B, D)

    def fuse(self, features: Features) -> Fused:
        """Steps named as in the paper's figure: spatial grounding, temporal grounding, fusion with
        the question.
        """
        grounded = self.spatial(features.audio, features.visual)                    # (B, T, D)
        question, mask, extra = features.question, features.mask, features.extra
        audio = self.temporal_audio(question, features.audio, mask(AUDIO), extra(AUDIO))        # (B, D)
        visual = self.temporal_visual(question, grounded, mask(VISUAL), extra(VISUAL))          # (B, D)
        fused = self.fusion(torch.tanh(torch.cat([audio, visual], dim=-1)))         # (B, D)
        losses = {} if features.negative is None else {"match": self.match_loss(features, grounded)}
        return Fused(torch.tanh(fused * question), losses, (audio, visual))

    def combination(self) -> list[nn.Module]:
        return [self.fusion]

    def match_loss(self, features: Features, grounded: Tensor) -> Tensor:
        """Does this map belong to this sound? Cross entropy over positive and negative segments,
        (B,).
        """
        negative = self.spatial(features.audio, features.negative)                  # (B, T, D)
        pairs = torch.cat([torch.cat([features.audio, y], dim=-1) for y in (grounded, negative)], dim=1)
        logits = self.match(pairs)                                                  # (B, 2T, 2)
        segments = grounded.shape[1]
        target = torch.arange(2 * segments, device=logits.device) < segments        # positives first: label 1
        target = target.long().expand(logits.shape[:2])                             # (B, 2T)
        loss = F.cross_entropy(logits.transpose(1, 2), target, reduction="none").mean(dim=1)
        valid = features.negative_valid if self.match_views == "all" else features.negative_valid & features.whole
        return loss * valid


def as_tokens(maps: Tensor) -> Tensor:
    """(B, T, C, H, W) -> (B, T, N, C), a view."""
    return maps.flatten(3).transpose(2, 3)


def other_video(video: Tensor, presence: Tensor) -> tuple[Tensor, Tensor]:
    """For every question the next one of the batch that shows another video; (B,) positions and
    (B,) validity.

    `video` (B,) indices, `presence` (B, T, 2). A question is invalid where the batch holds no other
    video or where either map is not wholly present: a blank is no evidence about what sounds.
    """
    size = video.shape[0]
    shown = presence.all(dim=1).all(dim=-1)                                         # (B,)
    usable = (video[:, None] != video[None, :]) & shown[None, :]                    # (B, B)
    order = (torch.arange(size, device=video.device)[None, :] - torch.arange(size, device=video.device)[:, None])
    distance = (order - 1) % size                                                   # nearest following first
    distance = distance.masked_fill(~usable, size)
    return distance.argmin(dim=1), usable.any(dim=1) & shown
