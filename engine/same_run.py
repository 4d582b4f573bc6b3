"""Whether a run folder holds the run asked for: configuration, vocabulary, questions."""

from __future__ import annotations

import hashlib
import json
from dataclasses import asdict
from pathlib import Path
from typing import Any

from dataset import Vocabulary
from dataset.types import DataSpec
from engine.config import with_defaults
from engine.errors import UsageError, shown
from engine.optimiser import depends_on_length

FIELDS = ("row", "question_id", "video_id", "type", "template", "words", "answer", "choices")


def digests(data: Any) -> dict[str, str]:
    """SHA-256 of the questions that training reads, by split."""
    return {split: digest(data.questions(split)) for split in ("train", "val")}


def digest(questions: list) -> str:
    content = [[getattr(question, name) for name in FIELDS] for question in questions]
    return hashlib.sha256(json.dumps(content).encode()).hexdigest()


def check_same_data(saved: dict[str, Any], vocabulary: Vocabulary, spec: DataSpec, annotations: dict[str, str],
                    path: Path) -> None:
    """A run continues on the data it was trained on; a checkpoint may be older than the digests."""
    was = saved["annotations"] if isinstance(saved.get("annotations"), dict) else {}
    changed = [f"the annotations of {split}" for split, now in annotations.items() if was.get(split, now) != now]
    changed += [f"the {name} of its vocabulary" for name, now in vocabulary.to_dict().items()
                if saved["vocabulary"].get(name) != now]
    changed += [f"{name} (was {shown(saved['spec'][name])}, now {shown(now)})" for name, now in asdict(spec).items()
                if saved["spec"].get(name, now) != now]
    if changed:
        raise UsageError(f"{path} was trained on other data; changed: {', '.join(changed)}. Restore the data, or "
                         "choose another folder with run.name=NAME, or delete that one")


def check_same_run(saved: dict[str, Any], config: dict[str, Any], path: Path) -> None:
    """A run folder continues only the run it holds; how long, where and how often may change.

    The length may not where the learning rate depends on it. A younger option had its default.
    """
    free = {("train", "patience"), ("train", "log_every")}
    if not depends_on_length(config["train"]):
        free |= {("train", "epochs"), ("train", "max_steps")}
    saved = with_defaults(saved)
    for section, options in config.items():
        if section in ("runtime", "evaluate", "run"):
            continue
        for key, value in options.items():
            was = saved.get(section, {}).get(key)
            if was != value and (section, key) not in free:
                raise UsageError(f"{path} is of another configuration: {section}.{key} was {was!r}, now {value!r}; "
                                 "choose another folder with run.name=NAME, or delete that one")
