"""Retrieval: what the nearest training videos had in place of the missing modality."""

from __future__ import annotations

from typing import Annotated, Literal

import torch
from pydantic import Field
from torch import Tensor
from torch.nn import functional as F

from dataset.types import AUDIO, VISUAL
from models.features import Features, FeatureShape, blank_features, merge
from models.layers.processes import of_all_processes
from models.layers.standardise import Standardiser
from models.methods.base import Method, ViewMode, Views, simulate

TEMPERATURE = 0.05
LACKS = {"audio_missing": (True, False), "visual_missing": (False, True)}      # sound and picture, of whole questions
CHUNK = 2 ** 24              # scores, or numbers of neighbours, held at once: 64 MB


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
        return Views({name: self.view(name, state, features)
                      for name, state in simulate(features.presence, self.views_mode).items()})

    def view(self, name: str, state: Tensor, features: Features) -> Features:
        """What `state` (B, T, 2) leaves of `features`, completed.

        Where the batch is known to be whole, only the side is searched for that the view lacks.
        """
        if features.known_whole and state is features.presence:
            return features
        sides = LACKS.get(name, (True, True)) if features.known_whole else (True, True)
        return self.completed(blank_features(features, state), *sides)

    def completed(self, features: Features, audio: bool = True, visual: bool = True) -> Features:
        """`features` with what either side's neighbours had, in the absent entries of the sides
        asked for. In float32 under any precision: cosines near one are told apart by little.
        """
        with torch.autocast(features.audio.device.type, enabled=False):
            heard, seen = self.keys(features.audio, features.visual)               # (B, T, D) each
            bank_heard, bank_seen = self.keys(self.audio, self.visual)             # (C, T, D) each
            stand_in = features
            if audio:
                recalled = self.recall(seen, VISUAL, bank_seen, self.audio, features)          # (B, T, D)
                stand_in = stand_in.with_(audio=recalled.to(features.audio.dtype))
            if visual:
                recalled = self.recall(heard, AUDIO, bank_heard, self.visual, features)        # (B, T, N or 1, D)
                stand_in = stand_in.with_(visual=recalled.to(features.visual.dtype).expand_as(features.visual))
        return merge(features, stand_in, ~features.presence[..., AUDIO], ~features.presence[..., VISUAL])

    def recall(self, query: Tensor, side: int, keys: Tensor, values: Tensor, features: Features) -> Tensor:
        """The weighted mean of the `values` (C, T, ...) whose `keys` (C, T, D) are nearest.

        `query` (B, T, D) is of `side`; the mean of all where that side is absent, too.
        """
        asks, keys, values = features.presence[..., side].flatten(), keys.flatten(0, 1), values.flatten(0, 1)
        places = self.owner.repeat_interleave(query.shape[1])                      # (C*T,)
        own = None if features.video is None else features.video.repeat_interleave(query.shape[1])
        rows, parts = max(CHUNK // max(len(places), self.neighbours * values[0].numel()), 1), []
        mean = values.sum(dim=0) / (places >= 0).sum().clamp_min(1)                # (...)
        for part in torch.arange(query.shape[0] * query.shape[1], device=query.device).split(rows):
            barred = (places < 0).expand(len(part), -1)
            if own is not None and self.training:
                barred = barred | (places == own[part, None])
            score = (query.flatten(0, 1)[part] @ keys.T).masked_fill(barred, -2.0)             # (b, C*T)
            score, index = score.topk(self.neighbours, dim=-1)                     # (b, k)
            weight = torch.softmax(score / TEMPERATURE, dim=-1) * (score > -2.0)   # barred ones: 0
            weight = weight / weight.sum(dim=-1, keepdim=True).clamp_min(1e-12)
            near = (weight.unsqueeze(1) @ values[index].flatten(2)).view(len(part), *values.shape[1:])
            parts.append(torch.where(asks[part].view(-1, *[1] * (near.dim() - 1)), near, mean))
        return torch.cat(parts).unflatten(0, query.shape[:2])

    def keys(self, audio: Tensor, visual: Tensor) -> tuple[Tensor, Tensor]:
        """Unit vectors of either side by segment, (B, T, D) each."""
        visual = visual.float().mean(dim=2)
        return (F.normalize(self.audio_scale.standardise(audio), dim=-1),
                F.normalize(self.visual_scale.standardise(visual), dim=-1))

    @torch.no_grad()
    def observe(self, features: Features) -> None:
        """Put the whole videos of a training batch, those of all processes, into the bank."""
        if not self.training:
            return
        visual = features.visual.float()
        visual = visual.mean(dim=2, keepdim=True) if self.pooled else visual       # (B, T, 1 or N, D)
        video, audio, visual, presence = (of_all_processes(values) for values in (
            features.video, features.audio.float(), visual, features.presence))
        self.audio_scale.observe(audio, presence[..., AUDIO])
        self.visual_scale.observe(visual.mean(dim=2, keepdim=True), presence[..., VISUAL])
        place, whole = video % len(self.owner), presence.flatten(1).all(dim=1)     # (B,)
        order = torch.arange(len(place), device=place.device)
        first = torch.where(whole[None] & (place[:, None] == place), order, len(place)).amin(dim=1)
        chosen = first.clamp_max(len(place) - 1)       # of the questions of one place the first whole one
        for bank, new in ((self.owner, video), (self.audio, audio), (self.visual, visual)):
            some = (first < len(place)).reshape(-1, *[1] * (new.dim() - 1))
            bank.index_copy_(0, place, torch.where(some, new[chosen].to(bank.dtype), bank[place]))
