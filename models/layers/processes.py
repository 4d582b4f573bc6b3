"""Statistics over what all processes of a training see."""

from __future__ import annotations

import torch
from torch import Tensor, distributed


def of_all_processes(values: Tensor) -> Tensor:
    """The rows (B, ...) of every process, as many on each, in the order in which the questions were
    dealt out.
    """
    if not (distributed.is_available() and distributed.is_initialized()):
        return values
    sent = values.byte() if values.dtype == torch.bool else values.contiguous()
    parts = [torch.empty_like(sent) for _ in range(distributed.get_world_size())]
    distributed.all_gather(parts, sent)
    return torch.stack(parts, dim=1).flatten(0, 1).to(values.dtype)
