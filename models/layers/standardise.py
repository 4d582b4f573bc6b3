"""Features on the unit scale that a diffusion with unit noise needs."""

from __future__ import annotations

import torch
from torch import Tensor, nn


def mean_and_variance(values: Tensor, present: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Of the entries of `values` (B, T, ..., D) that `present` (B, T) marks: mean and variance (D,)
    in float32, and how many there are.

    Sums over all entries with the others as zeros: to pick them out, the host would have to wait
    for the device.
    """
    rows = values.float().flatten(2, -2) if values.dim() > 3 else values.float().unsqueeze(2)      # (B, T, N, D)
    marked = present[:, :, None, None]
    count = present.sum() * rows.shape[2]
    mean = torch.where(marked, rows, 0.0).sum(dim=(0, 1, 2)) / count.clamp_min(1)  # (D,)
    variance = torch.where(marked, rows - mean, 0.0).square().sum(dim=(0, 1, 2)) / count.clamp_min(1)
    return mean, variance, count


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
        mean, variance, count = mean_and_variance(values, present)
        share = torch.where(self.seen, self.momentum, 1.0) * (count > 1)           # 0: too few to count
        self.mean.lerp_(mean, share)
        self.variance.lerp_(variance, share)
        self.seen |= count > 1

    def deviation(self) -> Tensor:
        floor = 0.01 * self.variance.mean().sqrt() + 1e-6
        return torch.maximum(self.variance.sqrt(), floor)              # (D,)

    def standardise(self, values: Tensor) -> Tensor:
        return (values.float() - self.mean) / self.deviation()

    def restore(self, values: Tensor) -> Tensor:
        return values * self.deviation() + self.mean
