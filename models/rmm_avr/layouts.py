"""The two readings of "concatenated" (section 3.2): which sequences (S, L, C) a pair of features
becomes.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from models.features import FeatureShape
from models.rmm_avr.fast import FastDenoiser


class Layout(nn.Module):
    """A segment is 1 + N tokens of D channels, the sound first. The tokens of a question, cut into
    rows of `channels` numbers, make sequences of `positions` rows.

    With k `multipliers` the U-Net halves a sequence k - 1 times, so its `length` is padded to a
    multiple of 2 ** (k - 1).
    """

    def __init__(self, shape: FeatureShape, multipliers: tuple[int, ...], positions: int, channels: int) -> None:
        super().__init__()
        self.shape, self.multipliers, self.positions, self.channels = shape, multipliers, positions, channels
        self.length = positions + -positions % 2 ** (len(multipliers) - 1)

    def denoiser(self, width: int, input_skip: Tensor | None) -> nn.Module:
        """The network for these sequences; `FastDenoiser` is `Denoiser` in less time."""
        return FastDenoiser(width, self.channels, self.multipliers, input_skip)

    def join(self, audio: Tensor, visual: Tensor) -> Tensor:
        """audio (B, T, D), visual (B, T, N, D) -> (S, L, C)."""
        tokens = torch.cat([audio.unsqueeze(2), visual], dim=2)                    # (B, T, 1 + N, D)
        return nn.functional.pad(tokens.reshape(-1, self.positions, self.channels),
                                 (0, 0, 0, self.length - self.positions))

    def separate(self, pair: Tensor) -> tuple[Tensor, Tensor]:
        """(S, L, C) -> audio (B, T, D), visual (B, T, N, D)."""
        tokens = (self.shape.segments, 1 + self.shape.tokens, self.shape.channels)
        tokens = pair[:, :self.positions].reshape(-1, *tokens)                     # (B, T, 1 + N, D)
        return tokens[:, :, 0], tokens[:, :, 1:]

    def per_segment(self, error: Tensor) -> Tensor:
        """An error of every position (S, L), averaged per segment: (B, T)."""
        rows = (1 + self.shape.tokens) * self.shape.channels // self.channels      # of one segment
        return error[:, :self.positions].reshape(-1, self.shape.segments, rows).mean(dim=2)


def by_token(shape: FeatureShape, multipliers: tuple[int, ...]) -> Layout:
    """Per segment the sequence [audio; N visual tokens]: S = B*T, L = 1 + N, C = D."""
    return Layout(shape, multipliers, 1 + shape.tokens, shape.channels)


def by_time(shape: FeatureShape, multipliers: tuple[int, ...]) -> Layout:
    """Per question its segments, the tokens of each side by side: S = B, L = T, C = D + N*D."""
    return Layout(shape, multipliers, shape.segments, (1 + shape.tokens) * shape.channels)


LAYOUTS = {"tokens": by_token, "time": by_time}
