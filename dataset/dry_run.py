"""Whether features come from random weights: scripts/extract_features.py --weights random."""

from __future__ import annotations

import json
from pathlib import Path

from dataset.files import refuse_special

SETTINGS = "extraction.json"             # in the feature root: what all its files were extracted with
WARNING = ("warning: the features were extracted with random weights (extract_features.py --weights random): a dry "
           "run, its results say nothing about the data")


def is_dry_run(features: Path) -> bool:
    """Of the feature root `features`; they are real where no extraction.json denies it."""
    path = features / SETTINGS
    refuse_special(path)
    try:
        settings = json.loads(path.read_bytes())
        return isinstance(settings, dict) and "weights" in settings
    except (OSError, ValueError, RecursionError):
        return False
