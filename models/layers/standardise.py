"""Features on the unit scale that a diffusion with unit noise needs."""

from __future__ import annotations

import torch
from torch import Tensor, nn


def present_entries(values: Tensor, present: Tensor) -> Tensor:
    """(entries, D) float32, those of `values` (B, T, ..., D) that `present` (B, T) marks."""
    chosen = values if bool(present.all()) else values[present]
    return chosen.float().reshape(-1, values.shape[-1])


class Standardiser(nn.Module):
    """Mean and variance per channel of one modality: exact on the first batch, then exponential
    running means.

    The statistics are buffers, saved with the model; no gradient passes through them. Channels that
    hardly vary are divided by no less than a hundredth of the typical deviation.
    """

    momentum = 0.01

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.register_buffer("mean", torch.zeros(channels))
        self.register_buffer("variance", torch.ones(channels))
        self.register_buffer("seen", torch.zeros((), dtype=torch.bool))

    @torch.no_grad()
    def observe(self, values: Tensor, present: Tensor) -> None:
        """Update from the entries of `values` (B, T, ..., D) that `present` (B, T) marks."""
        chosen = present_entries(values, present)
        if chosen.shape[0] < 2:
            return
        variance, mean = torch.var_mean(chosen, dim=0, correction=0)
        if bool(self.seen):
            variance, mean = self.variance.lerp(variance, self.momentum), self.mean.lerp(mean, self.momentum)
        self.mean.copy_(mean)
        self.variance.copy_(variance)
        self.seen.fill_(True)

    def deviation(self) -> Tensor:
        floor = 0.01 * self.variance.mean().sqrt() + 1e-6
        return torch.maximum(self.variance.sqrt(), floor)              # (D,)

    def standardise(self, values: Tensor) -> Tensor:
        return (values.float() - self.mean) / self.deviation()

    def restore(self, values: Tensor) -> Tensor:
        return values * self.deviation() + self.mean
