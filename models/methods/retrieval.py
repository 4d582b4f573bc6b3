"""Retrieval: what the nearest training videos had in place of the missing modality."""

from __future__ import annotations

from typing import Annotated, Literal

import torch
from pydantic import Field
from torch import Tensor
from torch.nn import functional as F

from dataset.types import AUDIO, VISUAL
from models.features import Features, FeatureShape, blank_features
from models.layers.standardise import Standardiser
from models.methods.base import Method, ViewMode, Views, simulate
from models.rmm_avr.method import merge

TEMPERATURE = 0.05
CHUNK = 2 ** 24              # scores held at once, 64 MB


class Retrieval(Method):
    """k nearest neighbours in a bank of training features; nothing is trained.

    The direction of MissRAG (Pipoli et al., ICCV 2025), on features. One segment of the present
    side, standardised, its map averaged, is compared by cosine with every segment of that side in
    the bank. The missing side of the `neighbours` nearest is averaged with the weights
    softmax(cosine / 0.05). In training no segment of the asked video itself answers.

    `capacity`: videos in the bank; of more, later ones take the places of earlier ones. `store`:
    whole maps, or the `mean` over each, for a hundredth of the memory at the real size. The bank is
    filled by one pass over the training data and saved with the model. `views`: what is answered in
    training (`simulate`), where the backbone is trained along.
    """

    def __init__(
        self,
        shape: FeatureShape,
        *,
        neighbours: Annotated[int, Field(ge=1, le=100_000)] = 128,
        capacity: Annotated[int, Field(ge=1, le=1_000_000)] = 4096,
        store: Literal["map", "mean"] = "mean",
        views: ViewMode = "all",
    ) -> None:
        super().__init__()
        T, D = shape.segments, shape.channels
        self.neighbours, self.views_mode = min(neighbours, capacity * T), views
        self.pooled = store == "mean"
        self.audio_scale, self.visual_scale = Standardiser(D), Standardiser(D)
        self.register_buffer("owner", torch.full((capacity,), -1))                 # video, -1: free
        self.register_buffer("audio", torch.zeros(capacity, T, D))
        self.register_buffer("visual", torch.zeros(capacity, T, 1 if self.pooled else shape.tokens, D))

    def fill_in(self, features: Features) -> Features:
        """Only the sides that some question lacks are searched for."""
        lacks_audio, lacks_visual = (~features.presence).any(dim=1).any(dim=0).tolist()
        return self.completed(features, lacks_audio, lacks_visual)

    def views(self, features: Features) -> Views:
        self.observe(features)
        if not features.question.requires_grad:        # nothing is trained along: filling in would be for nothing
            return Views({"complete": features})
        states = simulate(features.presence, self.views_mode)
        return Views({name: self.completed(blank_features(features, state)) for name, state in states.items()})

    def completed(self, features: Features, audio: bool = True, visual: bool = True) -> Features:
        """`features` with what either side's neighbours had, in the absent entries of the sides
        asked for.
        """
        heard, seen = self.keys(features.audio, features.visual)                   # (B, T, D) each
        bank_heard, bank_seen = self.keys(self.audio, self.visual)                 # (C, T, D) each
        stand_in = features
        if audio:
            recalled = self.recall(seen, bank_seen, self.audio, features)          # (B, T, D)
            stand_in = stand_in.with_(audio=recalled.to(features.audio.dtype))
        if visual:
            recalled = self.recall(heard, bank_heard, self.visual, features)       # (B, T, N or 1, D)
            stand_in = stand_in.with_(visual=recalled.to(features.visual.dtype).expand_as(features.visual))
        return merge(features, stand_in, ~features.presence[..., AUDIO], ~features.presence[..., VISUAL])

    def recall(self, query: Tensor, keys: Tensor, values: Tensor, features: Features) -> Tensor:
        """`query` (B, T, D) against `keys` (C, T, D): the weighted mean of `values` (C, T, ...)."""
        size, own = query.shape[1], features.video
        places = self.owner.repeat_interleave(size)                                # (C*T,)
        rows = max(CHUNK // max(len(places) * size, 1), 1)
        parts = []
        for start in range(0, len(query), rows):
            score = query[start:start + rows].flatten(0, 1) @ keys.flatten(0, 1).T             # (b*T, C*T)
            barred = places < 0
            if own is not None and self.training:
                barred = barred | (places == own[start:start + rows].repeat_interleave(size)[:, None])
            score, index = score.masked_fill(barred, -2.0).topk(self.neighbours, dim=-1)       # (b*T, k)
            weight = torch.softmax(score / TEMPERATURE, dim=-1) * (score > -2.0)          # barred ones: 0
            weight = weight / weight.sum(dim=-1, keepdim=True).clamp_min(1e-12)
            near = values.flatten(0, 1)[index].flatten(2)                          # (b*T, k, ...)
            parts.append((weight.unsqueeze(1) @ near).squeeze(1))
        return torch.cat(parts).reshape(*query.shape[:2], *values.shape[2:])

    def keys(self, audio: Tensor, visual: Tensor) -> tuple[Tensor, Tensor]:
        """Unit vectors of either side by segment, (B, T, D) each."""
        visual = visual.mean(dim=2)
        return (F.normalize(self.audio_scale.standardise(audio), dim=-1),
                F.normalize(self.visual_scale.standardise(visual), dim=-1))

    @torch.no_grad()
    def observe(self, features: Features) -> None:
        """Put the videos of a training batch that are whole into the bank."""
        if not self.training:
            return
        audio, visual = features.audio.float(), features.visual.float()
        pooled = visual.mean(dim=2, keepdim=True)                                  # (B, T, 1, D)
        self.audio_scale.observe(audio, features.presence[..., AUDIO])
        self.visual_scale.observe(pooled, features.presence[..., VISUAL])
        place, whole = features.video % len(self.owner), features.whole            # (B,)
        for bank, new in ((self.owner, features.video), (self.audio, audio),
                          (self.visual, pooled if self.pooled else visual)):
            kept = whole.reshape(-1, *[1] * (new.dim() - 1))
            bank.index_copy_(0, place, torch.where(kept, new.to(bank.dtype), bank[place]))
