"""What scripts/extract_features.py noted beside the features it wrote."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from dataset.files import refuse_special
from dataset.store import DAY

SETTINGS = "extraction.json"             # in the feature root: what all its files were extracted with
WARNING = ("warning: the features were extracted with random weights (extract_features.py --weights random): a dry "
           "run, its results say nothing about the data")


def settings_of(features: Path) -> dict[str, Any]:
    """The notes in the feature root `features`; none where they cannot be read."""
    path = features / SETTINGS
    refuse_special(path)
    try:
        settings = json.loads(path.read_bytes())
        return settings if isinstance(settings, dict) else {}
    except (OSError, ValueError, RecursionError):
        return {}


def is_dry_run(features: Path) -> bool:
    """Whether the features come from random weights; they are real where no note denies it."""
    return "weights" in settings_of(features)


def row_seconds(features: Path) -> int:
    """Seconds between two rows of the features, the --stride of the extraction; 1 without note."""
    stride = settings_of(features).get("stride")
    return stride if type(stride) is int and 0 < stride <= DAY else 1
