"""The two readings of "concatenated" (section 3.2): which sequences (S, L, C) a pair of features
becomes.

A layout knows how long its sequences are (`length`, padding included) and how many `channels` they
have. `join` makes them, `separate` takes them apart again, and `denoiser` makes the network for
them.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from models.features import FeatureShape
from models.rmm_avr.fast import FastDenoiser


class Layout(nn.Module):
    """`positions`: the length without padding; every multiplier but one halves the padded one."""

    def __init__(self, shape: FeatureShape, multipliers: tuple[int, ...], positions: int, channels: int) -> None:
        super().__init__()
        self.shape, self.multipliers, self.channels = shape, multipliers, channels
        self.padding = -positions % 2 ** (len(multipliers) - 1)
        self.length = positions + self.padding

    def denoiser(self, width: int, input_skip: Tensor | None) -> nn.Module:
        return FastDenoiser(width, self.channels, self.multipliers, input_skip)


class Tokens(Layout):
    """Per segment the sequence [audio; N visual tokens] of D channels: S = B*T, L = 1 + N."""

    def __init__(self, shape: FeatureShape, multipliers: tuple[int, ...]) -> None:
        super().__init__(shape, multipliers, 1 + shape.tokens, shape.channels)

    def join(self, audio: Tensor, visual: Tensor) -> Tensor:
        """audio (B, T, D), visual (B, T, N, D) -> (B*T, L, D)."""
        pad = visual.new_zeros(*visual.shape[:2], self.padding, self.channels)
        return torch.cat([audio.unsqueeze(2), visual, pad], dim=2).flatten(0, 1)   # (B*T, L, D)

    def separate(self, pair: Tensor, questions: int) -> tuple[Tensor, Tensor]:
        """(B*T, L, D) -> audio (B, T, D), visual (B, T, N, D)."""
        pair = pair.unflatten(0, (questions, -1))[:, :, :self.length - self.padding]           # (B, T, 1 + N, D)
        return pair[:, :, 0], pair[:, :, 1:]

    def per_segment(self, error: Tensor, questions: int) -> Tensor:
        """An error (S, L) of every position, averaged per segment: (B, T)."""
        return error[:, :self.length - self.padding].mean(dim=1).unflatten(0, (questions, -1))


class Time(Layout):
    """Per question its segments, the features of each side by side: S = B, L = T, C = D + N*D."""

    def __init__(self, shape: FeatureShape, multipliers: tuple[int, ...]) -> None:
        super().__init__(shape, multipliers, shape.segments, shape.channels * (1 + shape.tokens))

    def join(self, audio: Tensor, visual: Tensor) -> Tensor:
        """audio (B, T, D), visual (B, T, N, D) -> (B, L, D + N*D)."""
        pair = torch.cat([audio, visual.flatten(2)], dim=2)                        # (B, T, D + N*D)
        return nn.functional.pad(pair, (0, 0, 0, self.padding))

    def separate(self, pair: Tensor, questions: int) -> tuple[Tensor, Tensor]:
        """(B, L, D + N*D) -> audio (B, T, D), visual (B, T, N, D)."""
        pair, D = pair[:, :self.shape.segments], self.shape.channels
        return pair[..., :D], pair[..., D:].unflatten(-1, (self.shape.tokens, D))

    def per_segment(self, error: Tensor, questions: int) -> Tensor:
        """An error (S, L) of every position, which is a segment: (B, T)."""
        return error[:, :self.shape.segments]


LAYOUTS = {"tokens": Tokens, "time": Time}
