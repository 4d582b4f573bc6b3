"""The total loss as one pure function of named terms (Eq. 8)."""

from __future__ import annotations

from collections.abc import Iterable

import torch
from torch import Tensor
from torch.nn import functional as F


class NonFiniteLoss(RuntimeError):
    """A loss term is NaN or infinite; the message names it."""


def answer_loss(logits: Tensor, answer: Tensor, label_smoothing: float = 0.0) -> Tensor:
    """L_ce of Eq. 8: mean cross entropy of `logits` (B, A) against `answer` (B,) int64; -1 is left
    out.
    """
    known = (answer >= 0).sum().clamp_min(1)
    loss = F.cross_entropy(
        logits.float(), answer, ignore_index=-1, reduction="sum", label_smoothing=label_smoothing
    )
    return loss / known


def total_loss(terms: dict[str, Tensor], weights: dict[str, float]) -> Tensor:
    """The weighted sum of all terms. A view's term `match_audio_missing` takes the weight of
    `match`; of several weights whose names begin it, that of the longest. KeyError for a term
    without a weight.
    """
    total = torch.zeros((), device=next(iter(terms.values())).device)
    for name, value in terms.items():
        total = total + weights[weight_name(name, weights)] * value
    return total


def weight_name(term: str, weights: Iterable[str]) -> str:
    """The weight that counts for `term`: its own name, or the longest that it begins with before a
    `_VIEW`.
    """
    fitting = [name for name in weights if term == name or term.startswith(f"{name}_")]
    if not fitting:
        raise KeyError(f"the loss term '{term}' has no weight; there are weights for {', '.join(sorted(weights))}")
    return max(fitting, key=len)


def check_finite(values: dict[str, float]) -> None:
    """Stop at the first term that is not finite, by name."""
    for name, value in values.items():
        if not torch.isfinite(torch.tensor(value)):
            raise NonFiniteLoss(f"the loss term '{name}' is {value}")
