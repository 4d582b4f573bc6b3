"""A few files of every registered data set: a function by its name writes them to `root` and
returns the options."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from commands import write_avqa, write_dataset


def music_avqa(root: Path) -> dict[str, Any]:
    write_dataset(root)
    return {"stride": 2}


def avqa(root: Path) -> dict[str, Any]:
    write_avqa(root)
    return {"holdout": 0.3}


def synthetic(root: Path) -> dict[str, Any]:
    """Nothing is written: this data set makes itself."""
    return {"train_videos": 12, "val_videos": 4, "test_videos": 4, "channels": 16}
