"""The trained runs at hand, loaded when they are asked."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

from dataset.extract import EXTRACTORS
from engine.answerer import Answerer
from engine.errors import UsageError, shown
from engine.restore import checkpoint_in
from engine.yaml_layers import parse_yaml

KEPT = 4                     # loaded models


@dataclass(frozen=True)
class Run:
    """A run folder or an exported one: what it was trained with, by its configuration."""

    path: Path
    backbone: str
    method: str
    synthetic: bool
    extractable: bool        # whether its features can be made from a video

    def label(self, name: object) -> str:
        return f"{self.backbone} + {self.method}: {name}"


def read_run(path: Path) -> Run | None:
    """None where the folder holds no trained run."""
    if not checkpoint_in(path).is_file():
        return None
    file = next((path / name for name in ("config.yaml", "config.json") if (path / name).is_file()), None)
    try:
        config: Any = parse_yaml(file.read_bytes(), str(file)) if file else None
        config = config.get("config", config)                # an exported folder keeps more beside it
        data = config["dataset"]
        extractable = all(Path(data.get(key) or "").name in EXTRACTORS for key in ("audio_folder", "visual_folder"))
        names = config["backbone"]["name"], config["method"]["name"]
        return Run(path, *names, data["name"] == "synthetic", extractable)
    except (UsageError, AttributeError, KeyError, TypeError):
        return None


class Runs:
    """The runs of `given` folders; a folder that is none is looked into. Newest first.

    `weights`, `device`: as of an Answerer.
    """

    def __init__(self, given: Iterable[Path], weights: dict[str, Path], device: str) -> None:
        self.given = list(given)
        self.refresh()
        self.loaded = lru_cache(KEPT)(lambda path, _changed: Answerer(path, weights, device))

    def changed(self, label: str) -> int:
        """When the checkpoint of a run was written; 0 where it is gone."""
        file = checkpoint_in(self.by_label[label].path) if label in self.by_label else Path()
        return file.stat().st_mtime_ns if file.is_file() else 0

    def refresh(self) -> None:
        """Look again what is there."""
        folders = [run for path in self.given for run in ([path] if read_run(path) else children(path))]
        self.by_label: dict[str, Run] = {}
        for run in filter(None, map(read_run, folders)):
            label = run.label(run.path.name)
            self.by_label[run.label(run.path) if label in self.by_label else label] = run

    def fitting(self, synthetic: bool) -> list[str]:
        """Labels of the runs that answer on scenes of the embedded benchmark, or on clips."""
        return [label for label, run in self.by_label.items() if (run.synthetic if synthetic else run.extractable)]

    def first_two(self, labels: list[str]) -> list[str]:
        """The newest run of a method, of the paper's first, and a plain one of its backbone."""
        def order(label: str) -> int:
            return ("rmm_avr" != self.by_label[label].method) + ("plain" == self.by_label[label].method)

        first = sorted(labels, key=order)[:1]
        plain = [label for label in labels if self.by_label[label].method == "plain" and label not in first
                 and self.by_label[label].backbone == self.by_label[first[0]].backbone]
        return first + plain[:1]

    def open(self, label: str) -> Answerer:
        """UsageError where its checkpoint cannot be used."""
        if label not in self.by_label:
            raise UsageError(f"the run {shown(label)} is gone; load the page again")
        return self.loaded(self.by_label[label].path, self.changed(label))


def children(folder: Path) -> list[Path]:
    """The folders in `folder`, the newest first; none where it is not there."""
    found = [path for path in folder.glob("*") if path.is_dir()] if folder.is_dir() else []
    return sorted(found, key=lambda path: path.stat().st_mtime, reverse=True)
