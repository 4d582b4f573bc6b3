"""Refuse what would not fit the memory before it is allocated; afterwards it is too late."""

from __future__ import annotations

import math
import re
from pathlib import Path

from dataset.types import DataError


def free_memory() -> float:
    """Bytes that can be allocated without swapping; infinity where there is no /proc/meminfo."""
    file = Path("/proc/meminfo")
    line = re.search(r"MemAvailable:\s+(\d+) kB", file.read_text()) if file.is_file() else None
    return 1024 * float(line[1]) if line else math.inf


def refuse_beyond_memory(needed: float, what: str, advice: str) -> None:
    """DataError when `what` needs more bytes than are free; `advice` is what to do about it."""
    free = free_memory()
    if needed > free:
        raise DataError(f"{what} needs about {needed / 1e9:,.1f} GB of memory, {free / 1e9:,.1f} GB are free; {advice}")
