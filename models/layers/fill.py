"""What stands in for an absent modality when nothing recalls it."""

from __future__ import annotations

from typing import Literal

import torch
from torch import nn

from dataset.types import AUDIO, VISUAL
from models.features import Features, FeatureShape
from models.layers.noise import gaussian_like
from models.layers.processes import of_all_processes
from models.layers.standardise import mean_and_variance

FillMode = Literal["zeros", "noise", "mean"]


class Fill(nn.Module):
    """Zeros, N(0, 1) noise, or the running mean of the real features, written after `encode`.

    The paper does not say what its plain backbones were given; all three are here (Table 4, first
    rows).
    """

    momentum = 0.01

    def __init__(self, shape: FeatureShape, mode: FillMode) -> None:
        super().__init__()
        self.mode = mode
        self.register_buffer("mean_audio", torch.zeros(shape.channels))
        self.register_buffer("mean_visual", torch.zeros(shape.channels))
        self.register_buffer("seen", torch.zeros(2, dtype=torch.bool))             # columns AUDIO, VISUAL

    @torch.no_grad()
    def observe(self, features: Features) -> None:
        """Update the running means (D,) from the present entries of a training batch."""
        if self.mode != "mean":
            return
        for values, running, column in ((features.audio, self.mean_audio, AUDIO),
                                        (features.visual, self.mean_visual, VISUAL)):
            values, present = of_all_processes(values), of_all_processes(features.presence[..., column])
            mean, _, count = mean_and_variance(values, present)
            running.lerp_(mean, torch.where(self.seen[column], self.momentum, 1.0) * (count > 0))
            self.seen[column] |= count > 0

    def forward(self, features: Features) -> Features:
        """`features` with every absent entry filled. Zeros are there already."""
        if self.mode == "zeros":
            return features
        audio_absent = ~features.presence[..., AUDIO, None]            # (B, T, 1)
        visual_absent = ~features.presence[..., VISUAL, None, None]    # (B, T, 1, 1)
        if self.mode == "mean":
            audio, visual = self.mean_audio.to(features.audio.dtype), self.mean_visual.to(features.visual.dtype)
        else:
            audio = gaussian_like(features.audio, features.question_id, stream=1)
            visual = gaussian_like(features.visual, features.question_id, stream=2)
        return features.with_(
            audio=torch.where(audio_absent, audio, features.audio),
            visual=torch.where(visual_absent, visual, features.visual),
        )
