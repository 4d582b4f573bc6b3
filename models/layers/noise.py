"""Gaussian noise that evaluation can repeat."""

from __future__ import annotations

import torch
from torch import Tensor


def gaussian_like(values: Tensor, question_id: Tensor | None, stream: int = 0) -> Tensor:
    """Standard normal noise of the shape (B, ...) of `values`.

    In training (`question_id` None) it comes from the global generator. In evaluation each
    question's noise comes from a generator seeded with its own id, so it depends on neither the
    batch, its order nor its size; `stream` keeps the draws of one question apart.
    """
    if question_id is None:
        return torch.randn_like(values)
    noise = values.new_empty(values.shape)
    for row, seed in enumerate(question_id.tolist()):
        noise[row].normal_(generator=torch.Generator(values.device).manual_seed(seed * 1009 + stream))
    return noise
