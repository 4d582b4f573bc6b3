"""Paths from a clean feature to an end state, in continuous time, and the way back.

A state at time t in [0, 1] is x_t = a(t) x_0 + r(t) e. The end state e is noise (`Noise`) or what
was recalled (`Bridge`). `denoise` estimates x_0; a step back to time s < t keeps the estimate and
shortens the rest: x_s = a(s) x_0 + r(s) / r(t) (x_t - a(t) x_0). With noise this is DDIM (Song et
al., 2021, Eq. 12 with sigma = 0), with the bridge it is InDI (Delbracio and Milanfar, 2023).
"""

from __future__ import annotations

import math
from collections.abc import Callable
from itertools import pairwise
from typing import Literal

import torch
from torch import Tensor

Objective = Literal["x0", "v"]


class Noise:
    """Variance-preserving, cosine in time: x_t = cos(pi t / 2) x_0 + sin(pi t / 2) e, e ~ N(0, 1).

    (Nichol and Dhariwal, 2021, without their offset.)
    """

    random_end = True

    def a(self, t: Tensor) -> Tensor:
        return torch.cos(math.pi / 2 * t)

    def r(self, t: Tensor) -> Tensor:
        return torch.sin(math.pi / 2 * t)

    def slope(self, t: Tensor) -> Tensor:
        """Of r, up to the factor pi / 2 that v leaves out, too."""
        return self.a(t)


class Bridge:
    """Straight: x_t = (1 - t) x_0 + t e, from what was recalled (InDI, arXiv 2303.11435).

    The un-noised start of Fig. 4b, literally.
    """

    random_end = False

    def a(self, t: Tensor) -> Tensor:
        return 1 - t

    def r(self, t: Tensor) -> Tensor:
        return t

    def slope(self, t: Tensor) -> Tensor:
        return torch.ones_like(t)


PROCESSES = {"noise": Noise, "bridge": Bridge}
Path = Noise | Bridge


def mixed(path: Path, clean: Tensor, end: Tensor, t: Tensor) -> Tensor:
    """x_t of clean features and end states (B, ...), each at its own time (B,)."""
    t = spread(t, clean)
    return path.a(t) * clean + path.r(t) * end


def clean_estimate(path: Path, objective: Objective, state: Tensor, prediction: Tensor, t: Tensor) -> Tensor:
    """x_0 from what the network predicts of `state` at times `t` (B,).

    `x0`: it is the prediction. `v` (Salimans and Ho, 2022): the direction of the path, cos e - sin
    x_0 for noise and e - x_0 for the bridge; so x_0 = slope x_t - r v for either.
    """
    if objective == "x0":
        return prediction
    t = spread(t, state)
    return path.slope(t) * state - path.r(t) * prediction


def reverse(path: Path, end: Tensor, steps: int, denoise: Callable[[Tensor, Tensor], Tensor]) -> Tensor:
    """x_0 (B, ...) from the end state by `steps` equal steps; `denoise(x_t, t)` estimates x_0.

    The last step goes to time 0, where r is 0: the estimate itself.
    """
    state, times = end, [torch.full(end.shape[:1], k / steps, device=end.device) for k in range(steps, 0, -1)]
    for t, s in pairwise(times):
        clean = denoise(state, t)
        rest = state - path.a(spread(t, state)) * clean
        state = path.a(spread(s, state)) * clean + path.r(spread(s, state)) / path.r(spread(t, state)) * rest
    return denoise(state, times[-1])


def spread(t: Tensor, like: Tensor) -> Tensor:
    """Times (B,) as (B, 1, ...), to be multiplied with `like` (B, ...)."""
    return t.reshape(-1, *[1] * (like.dim() - 1))
