"""The one bundle that flows through the model, between a backbone's `encode` and its `fuse`.

B questions, T segments, N = H*W visual tokens, L words, D channels.
"""

from __future__ import annotations

from dataclasses import dataclass, fields, replace

import torch
from torch import Tensor

from dataset.types import AUDIO, VISUAL


@dataclass(frozen=True)
class FeatureShape:
    """The sizes a method needs to build its parameters."""

    segments: int            # T
    grid: tuple[int, int]    # (H, W)
    channels: int            # D

    @property
    def tokens(self) -> int:
        return self.grid[0] * self.grid[1]


@dataclass
class Features:
    """Encoded streams of B questions."""

    audio: Tensor                     # (B, T, D)
    visual: Tensor                    # (B, T, N, D)
    words: Tensor                     # (B, L, D)
    word_mask: Tensor                 # (B, L) bool, True = a word
    question: Tensor                  # (B, D)
    question_id: Tensor               # (B,) int64, seeds the noise of evaluation
    negative: Tensor | None = None    # (B, T, N, D) visual of other videos, training only
    negative_valid: Tensor | None = None    # (B,) bool, False = no other video was at hand

    def with_(self, **changes) -> Features:
        return replace(self, **changes)

    def rows(self, index: Tensor) -> Features:
        """The questions that `index` (bool mask or positions) selects."""
        return self._map(lambda t: t[index])

    def split(self, size: int) -> list[Features]:
        """Cut the batch into bundles of `size` questions; the inverse of `concatenate`."""
        return [self.rows(slice(i, i + size)) for i in range(0, self.audio.shape[0], size)]

    def _map(self, change) -> Features:
        values = {f.name: getattr(self, f.name) for f in fields(self)}
        return replace(self, **{k: change(v) for k, v in values.items() if v is not None})


def concatenate(bundles: list[Features]) -> Features:
    """One bundle of all questions, so that several views go through a backbone as one batch."""
    if len(bundles) == 1:
        return bundles[0]
    values = {}
    for field in fields(Features):
        parts = [getattr(b, field.name) for b in bundles]
        values[field.name] = None if parts[0] is None else torch.cat(parts)
    return Features(**values)


def blank(values: Tensor, present: Tensor) -> Tensor:
    """`values` (B, T, ...) with zeros wherever `present` (B, T) is False.

    A select, never a product: NaN times zero is NaN. Nothing is copied when all is present.
    """
    if bool(present.all()):
        return values
    mask = present.reshape(present.shape + (1,) * (values.dim() - 2))
    return torch.where(mask, values, torch.zeros((), dtype=values.dtype, device=values.device))


def blank_features(features: Features, presence: Tensor) -> Features:
    """Zeros in every absent entry of both streams; `presence` (B, T, 2) bool."""
    return features.with_(
        audio=blank(features.audio, presence[..., AUDIO]),
        visual=blank(features.visual, presence[..., VISUAL]),
    )
