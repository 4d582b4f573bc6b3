"""Data sets by name. Adding one is one file, one line here, one YAML."""

from __future__ import annotations

from importlib import import_module
from typing import Any

from dataset.floor import question_only_floor
from dataset.loader import make_loader
from dataset.presence import SCENARIOS, Scenario
from dataset.vocabulary import Vocabulary

DATASETS = {
    "synthetic": "dataset.synthetic.data.Synthetic",
    "music_avqa": "dataset.music_avqa.MusicAVQA",
    "music_avqa_v2": "dataset.music_avqa_v2.MusicAVQAv2",
    "music_avqa_r": "dataset.music_avqa_r.MusicAVQAR",
    "fortis_avqa": "dataset.music_avqa_r.FortisAVQA",
    "avqa": "dataset.avqa.AVQA",
}


def build_dataset(options: dict[str, Any]):
    """`options`: `name` plus the keywords of the registered class."""
    options = dict(options)
    module, name = DATASETS[options.pop("name")].rsplit(".", 1)
    return getattr(import_module(module), name)(**options)


__all__ = ["DATASETS", "SCENARIOS", "Scenario", "Vocabulary", "build_dataset", "make_loader", "question_only_floor"]
