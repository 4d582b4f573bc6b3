"""A checkpoint back to life: model, data and vocabulary as they were trained, with the user's overrides."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from accelerate import Accelerator

from dataset import Vocabulary, build_dataset
from dataset.types import DataSpec
from engine import runtime
from engine.checkpoint import load_checkpoint, load_weights
from engine.config import override
from models import build_model
from models.avqa import AVQAModel


@dataclass
class Restored:
    """`data` is an instance of the configured data set, checked against the shapes the model was built for.

    `changed`: those of the user's overrides that say something else than the checkpoint.
    """

    model: AVQAModel
    data: Any
    vocabulary: Vocabulary
    accelerator: Accelerator
    config: dict[str, Any]
    epoch: int
    changed: list[str]


def restore(path: Path, overrides: list[str]) -> Restored:
    """Everything an evaluation needs, on the configured device."""
    state = load_checkpoint(path)
    config = override(state["config"], overrides)
    as_trained = override(state["config"], [])
    changed = [item for item in overrides if override(state["config"], [item]) != as_trained]
    accelerator = runtime.make_accelerator(config["runtime"])
    spec = DataSpec(**state["spec"])
    data = build_dataset(config["dataset"])
    data.check(spec)
    model = build_model(spec, config["backbone"], config["method"])
    load_weights(model, state["model"], path)
    vocabulary = Vocabulary.from_dict(state["vocabulary"])
    return Restored(model.to(accelerator.device), data, vocabulary, accelerator, config, state["epoch"], changed)
