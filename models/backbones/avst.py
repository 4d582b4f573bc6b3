"""AVST, the grounding network of MUSIC-AVQA (Li et al., CVPR 2022), the paper's baseline.

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

from dataset.types import Batch, DataSpec
from models.backbones.base import Backbone, as_tokens, encoded, streams
from models.features import Features, Fused
from models.layers.attention import AttentionBlock, Stream, attention_shares, shares
from models.layers.question import QuestionLSTM

HEADS = 4                                # of the temporal attentions, as released


class SpatialGrounding(nn.Module):
    """Audio attends to the visual tokens of its own segment (CVPR 2022, section 4.2)."""

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.project = nn.Linear(2 * dim, dim)

    def forward(self, audio: Tensor, visual: Tensor) -> Tensor:
        """`audio` (B, T, D), `visual` (B, T, N, D) -> grounded visual (B, T, D).

        The tokens are normalised only inside two matrix products, so no second map is kept.
        """
        weight, scale = self.weigh(audio, visual)
        mean_weight = torch.full_like(weight, 1 / visual.shape[2])
        pooled = torch.stack([mean_weight, weight * scale], dim=2) @ visual         # (B, T, 2, D)
        return self.project(torch.tanh(pooled.flatten(2)))                          # (B, T, D)

    def weigh(self, audio: Tensor, visual: Tensor) -> tuple[Tensor, Tensor]:
        """The attention to every token and one over the length of the token, (B, T, N) each."""
        query = F.normalize(audio, dim=-1).unsqueeze(-1)                            # (B, T, D, 1)
        scale = torch.linalg.vector_norm(visual, dim=-1).clamp_min(1e-12).reciprocal()
        score = (visual @ query).squeeze(-1) * scale                                # (B, T, N) cosines
        return torch.softmax(score, dim=-1), scale


class TemporalGrounding(AttentionBlock):
    """The question attends to the T segment vectors of one stream; their mean is added."""

    def forward(self, question: Tensor, segments: Stream) -> Tensor:
        """`question` (B, D), T segments -> (B, D)."""
        return super().forward(question.unsqueeze(1), segments).squeeze(1) + segments.mean()


class AVST(Backbone):
    """Spatial grounding per segment, temporal grounding per stream, fusion by the question.

    Options: `dropout` of the temporal attentions; `match_weight` (0.5 as released) and `negatives`
    of the match loss, which counts in every view where a stand-in was written for what is absent.
    """

    has_summaries = True

    def __init__(
        self,
        spec: DataSpec,
        *,
        dropout: Annotated[float, Field(ge=0, lt=1)] = 0.1,
        match_weight: Annotated[float, Field(ge=0)] = 0.5,
        negatives: Literal["in_batch", "other_video"] = "in_batch",
    ) -> None:
        super().__init__()
        self.dim = dim = spec.visual_channels
        self.loss_weights = {"match": match_weight}
        self.needs_negatives = negatives == "other_video" and match_weight > 0
        self.question = QuestionLSTM(spec.vocabulary, dim)
        self.audio = nn.Sequential(nn.Linear(spec.audio_channels, dim), nn.ReLU(), nn.Linear(dim, dim))
        self.spatial = SpatialGrounding(dim)
        self.match = nn.Sequential(
            nn.Linear(2 * dim, dim), nn.ReLU(), nn.Linear(dim, dim // 2), nn.ReLU(),
            nn.Linear(dim // 2, dim // 4), nn.ReLU(), nn.Linear(dim // 4, 2),
        )
        self.temporal_audio = TemporalGrounding(dim, HEADS, dropout)
        self.temporal_visual = TemporalGrounding(dim, HEADS, dropout)
        self.fusion = nn.Linear(2 * dim, dim)

    def encode(self, batch: Batch) -> Features:
        """The question and audio layers; the visual map passes through as tokens, uncopied."""
        features = encoded(batch, self.audio(batch.audio), self.question(batch.words))
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
        """Named as in the paper: spatial and temporal grounding, fusion by the question."""
        grounded = self.spatial(features.audio, features.visual)                    # (B, T, D)
        heard, seen = streams(features, grounded)
        audio = self.temporal_audio(features.question, heard)                       # (B, D)
        visual = self.temporal_visual(features.question, seen)                      # (B, D)
        fused = self.fusion(torch.tanh(torch.cat([audio, visual], dim=-1)))         # (B, D)
        losses = {} if features.negative is None else {"match": self.match_loss(features, grounded)}
        attention = self.attention(features, heard, seen) if features.wants_attention else None
        return Fused(torch.tanh(fused * features.question), losses, (audio, visual), attention)

    def attention(self, features: Features, heard: Stream, seen: Stream) -> dict[str, Tensor]:
        """As `Fused.attention`."""
        query, (space, _) = features.question.unsqueeze(1), self.spatial.weigh(features.audio, features.visual)
        return {"audio": attention_shares(self.temporal_audio.attention, query, heard).squeeze(1),
                "visual": attention_shares(self.temporal_visual.attention, query, seen).squeeze(1),
                "space": shares(space, seen.readable.unsqueeze(-1))}

    def combination(self) -> list[nn.Module]:
        return [self.fusion]

    def match_loss(self, features: Features, grounded: Tensor) -> Tensor:
        """Does this map belong to this sound? Cross entropy over all pairs of segments, (B,)."""
        negative = self.spatial(features.audio, features.negative)                  # (B, T, D)
        pairs = torch.cat([torch.cat([features.audio, y], dim=-1) for y in (grounded, negative)], dim=1)
        logits = self.match(pairs)                                                  # (B, 2T, 2)
        segments = grounded.shape[1]
        target = torch.arange(2 * segments, device=logits.device) < segments        # positives first: label 1
        target = target.long().expand(logits.shape[:2])                             # (B, 2T)
        loss = F.cross_entropy(logits.transpose(1, 2), target, reduction="none").mean(dim=1)
        return loss * features.negative_valid


def other_video(video: Tensor, presence: Tensor) -> tuple[Tensor, Tensor]:
    """For every question the next one of another video: positions (B,) in the batch, validity (B,).

    `video` (B,) indices, `presence` (B, T, 2). A question is invalid where the batch holds no other
    video or where either map is not wholly present: a blank is no evidence about what sounds.
    """
    size = video.shape[0]
    shown = presence.all(dim=1).all(dim=-1)                                         # (B,)
    usable = (video[:, None] != video[None, :]) & shown[None, :]                    # (B, B)
    position = torch.arange(size, device=video.device)
    distance = (position[None, :] - position[:, None] - 1) % size                   # nearest following first
    distance = distance.masked_fill(~usable, size)
    return distance.argmin(dim=1), usable.any(dim=1) & shown
