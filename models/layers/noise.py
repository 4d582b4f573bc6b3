"""Gaussian noise that evaluation can repeat."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor

import torch
from torch import Tensor

LARGE = 2 ** 20              # numbers from which drawing on several cores is worth threads


def gaussian_like(values: Tensor, question_id: Tensor | None, stream: int = 0) -> Tensor:
    """Standard normal noise of the shape (B, ...) of `values`.

    In training (`question_id` None) it comes from the global generator. In evaluation each
    question's noise comes from a generator seeded with its own id, so it depends on neither the
    batch, its order nor its size; `stream` keeps the draws of one question apart.
    """
    if question_id is None:
        return torch.randn_like(values)
    noise = values.new_empty(values.shape)
    rows = list(zip(noise, question_id.tolist(), strict=True))

    def draw(row: Tensor, seed: int) -> None:
        with torch.inference_mode(row.is_inference()):                 # a thread does not inherit the mode
            row.normal_(generator=torch.Generator(row.device).manual_seed(seed * 1009 + stream))

    if noise.device.type == "cpu" and noise.numel() >= LARGE:          # one draw takes one core
        with ThreadPoolExecutor(torch.get_num_threads()) as pool:
            list(pool.map(draw, *zip(*rows, strict=True)))
    else:
        for row, seed in rows:
            draw(row, seed)
    return noise
