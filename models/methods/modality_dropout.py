"""Modality dropout: the backbone trained with a modality taken away and filled. The control of every table."""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor

from dataset.types import AUDIO, VISUAL
from models.features import Features, FeatureShape, blank_features
from models.layers.fill import Fill, FillMode
from models.methods.base import Method, Views, without


class ModalityDropout(Method):
    """The same fill as `plain`, but absence is simulated in training.

    `views`: `all` answers every question complete, without audio and without video, as Eq. 8 does for the paper's
    method; `sampled` draws one of the three states per question. A view in which a modality is simply absent gives
    no match loss: a blank is no evidence about what sounds.
    """

    def __init__(
        self, shape: FeatureShape, *, fill: FillMode = "zeros", views: Literal["all", "sampled"] = "all"
    ) -> None:
        super().__init__()
        self.fill = Fill(shape, fill)
        self.views_mode = views

    def complete(self, features: Features, presence: Tensor) -> Features:
        return self.fill(features, presence, features.question_id)

    def views(self, features: Features, presence: Tensor) -> Views:
        self.fill.observe(features, presence)
        no_audio, no_visual = without(presence, AUDIO), without(presence, VISUAL)
        if self.views_mode == "all":
            states = {"complete": presence, "audio_missing": no_audio, "visual_missing": no_visual}
            return Views({name: self.blanked(features, state) for name, state in states.items()})
        draw = torch.randint(3, presence.shape[:1], device=presence.device)[:, None, None]    # (B, 1, 1)
        state = torch.where(draw == 0, presence, torch.where(draw == 1, no_audio, no_visual))
        return Views({"sampled": self.blanked(features, state)})

    def blanked(self, features: Features, presence: Tensor) -> Features:
        """`features` as they are when only `presence` (B, T, 2) is there."""
        filled = self.fill(blank_features(features, presence), presence, None)
        if filled.negative_valid is None:
            return filled
        whole = presence.flatten(1).all(dim=1)                         # (B,)
        return filled.with_(negative_valid=filled.negative_valid & whole)
