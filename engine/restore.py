"""A checkpoint back to life: model, data and vocabulary as trained, with the user's overrides."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from accelerate import Accelerator
from pydantic import TypeAdapter

from dataset import Vocabulary, build_dataset
from dataset.types import DataSpec
from engine import runtime
from engine.checkpoint import load_checkpoint, load_weights
from engine.config import override
from engine.errors import UsageError
from engine.evaluation import Evaluator
from models import build_model
from models.avqa import AVQAModel

LARGEST = 2 ** 20            # of the sizes of a model, far beyond any


@dataclass
class Trained:
    """A model on the CPU, and what it was trained with.

    `changed`: those of the user's overrides that differ from the checkpoint.
    """

    model: AVQAModel
    vocabulary: Vocabulary
    spec: DataSpec
    config: dict[str, Any]
    epoch: int
    changed: list[str]


@dataclass
class Restored(Trained):
    """A trained model on the configured device, with its data.

    `data`: the configured data set, checked against the shapes the model was built for.
    """

    data: Any
    accelerator: Accelerator

    @property
    def evaluator(self) -> Evaluator:
        return Evaluator(self.model, self.data, self.vocabulary, self.accelerator,
                         self.config["evaluate"]["batch_size"], self.config["runtime"]["workers"])


def checkpoint_in(given: Path) -> Path:
    """A file as it is; of a folder its best checkpoint."""
    return given / "best.pt" if given.is_dir() else given


def load_trained(path: Path, overrides: Sequence[str] = ()) -> Trained:
    """UsageError naming the file where it is no checkpoint, or not one of today's options."""
    state = load_checkpoint(path)
    try:
        vocabulary = TypeAdapter(Vocabulary).validate_python(state["vocabulary"])
        spec = TypeAdapter(DataSpec).validate_python(state["spec"])
        check_sizes(spec, vocabulary)
        as_trained = override(state["config"], [])
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise UsageError(f"checkpoint {path} is damaged: its vocabulary, shapes or configuration cannot be read; give "
                         "another one") from error
    config = override(state["config"], overrides)
    changed = [item for item in overrides if override(state["config"], [item]) != as_trained]
    model = build_model(spec, config["backbone"], config["method"])
    load_weights(model, state["model"], path)
    return Trained(model, vocabulary, spec, config, state["epoch"], changed)


def check_sizes(spec: DataSpec, vocabulary: Vocabulary) -> None:
    """ValueError unless the sizes are such as a model can have, and those of the vocabulary."""
    sizes = [spec.segments, spec.audio_channels, spec.visual_channels, *spec.grid, spec.words]
    read = [len(vocabulary.words), len(vocabulary.answers), vocabulary.length]
    if [spec.vocabulary, spec.answers, spec.words] != read or not all(0 < size <= LARGEST for size in sizes):
        raise ValueError(f"no sizes of a model: {spec}")
    if not (0 <= spec.choices <= LARGEST and 0 <= spec.text_channels <= LARGEST):
        raise ValueError(f"no sizes of a model: {spec}")


def restore(path: Path, overrides: list[str]) -> Restored:
    """Everything an evaluation needs, on the configured device."""
    trained = load_trained(path, overrides)
    accelerator = runtime.make_accelerator(trained.config["runtime"])
    data = build_dataset(trained.config["dataset"])
    data.check(trained.spec)
    runtime.refuse_huge_batch("evaluate", trained.config["evaluate"]["batch_size"], len(data.questions("test")),
                              trained.spec)
    trained.model.to(accelerator.device)
    return Restored(**vars(trained), data=data, accelerator=accelerator)
