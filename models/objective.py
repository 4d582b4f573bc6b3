"""The total loss as one pure function of named terms (Eq. 8)."""

from __future__ import annotations

import math
from collections.abc import Mapping

from torch import Tensor
from torch.nn import functional as F

Terms = dict[str, dict[str, Tensor]]     # {term: {view: scalar}}
ACROSS = ""                              # the view of a term that belongs to none alone


class NonFiniteLoss(RuntimeError):
    """A loss term is NaN or infinite; the message names it."""


def answer_loss(logits: Tensor, answer: Tensor, label_smoothing: float = 0.0) -> Tensor:
    """L_ce of Eq. 8: mean cross entropy of `logits` (B, A) and `answer` (B,); -1 is left out."""
    known = (answer >= 0).sum().clamp_min(1)
    loss = F.cross_entropy(
        logits.float(), answer, ignore_index=-1, reduction="sum", label_smoothing=label_smoothing
    )
    return loss / known


def total_loss(terms: Terms, weights: Mapping[str, float]) -> Tensor:
    """The sum over all views and terms, each value times the weight of its term.

    Raises:
        KeyError: a term has no weight.
    """
    lacking = sorted(terms.keys() - weights.keys())
    if lacking:
        raise KeyError(f"the loss term '{lacking[0]}' has no weight; weights are for {', '.join(sorted(weights))}")
    views = dict.fromkeys(view for values in terms.values() for view in values)
    return sum(weights[term] * values[view] for view in views for term, values in terms.items() if view in values)


def check_finite(values: Mapping[str, float]) -> None:
    """Stop at the first of the named values that is not finite."""
    for name, value in values.items():
        if not math.isfinite(value):
            raise NonFiniteLoss(f"the loss term '{name}' is {value}")
