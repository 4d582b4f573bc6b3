"""What would not fit the memory is refused before it is allocated: afterwards nobody is left to report why."""

from __future__ import annotations

import math
import re
from pathlib import Path

from dataset.types import DataError


def free_memory() -> float:
    """Bytes that can be allocated without swapping; infinity where the system has no /proc/meminfo."""
    file = Path("/proc/meminfo")
    line = re.search(r"MemAvailable:\s+(\d+) kB", file.read_text()) if file.is_file() else None
    return 1024 * float(line[1]) if line else math.inf


def refuse_beyond_memory(needed: float, what: str, advice: str) -> None:
    """DataError when `what`, which needs `needed` bytes, is more than is free here; `advice` is what to do about it."""
    free = free_memory()
    if needed > free:
        raise DataError(f"{what} needs about {needed / 1e9:,.1f} GB of memory, {free / 1e9:,.1f} GB are free; {advice}")
