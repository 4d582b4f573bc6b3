"""What would not fit the memory is refused before it is allocated: afterwards nobody is left to say why."""

from __future__ import annotations

import psutil

from dataset.types import DataError


def refuse_beyond_memory(needed: float, what: str, advice: str) -> None:
    """DataError when `what`, which needs `needed` bytes, is more than is free here; `advice` says what to do about it."""
    free = psutil.virtual_memory().available
    if needed > free:
        raise DataError(f"{what} needs about {needed / 1e9:,.1f} GB of memory, {free / 1e9:,.1f} GB are free; {advice}")
