"""What a checkpoint is for: to evaluate, to start another run, to continue its own."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Annotated, Any

from accelerate import Accelerator
from pydantic import Field, StrictBool, TypeAdapter
from torch import nn

from dataset import Vocabulary, build_dataset
from dataset.store import DAY
from dataset.types import DataSpec
from engine import runtime
from engine.checkpoint import check_finite, load_checkpoint, load_weights
from engine.config import REGISTRIES, override
from engine.errors import UsageError, shown
from engine.evaluation import Evaluator
from engine.exported import WEIGHTS
from engine.optimiser import depends_on_length
from models import build_model
from models.avqa import AVQAModel

LARGEST = 2 ** 20            # of the sizes of a model, far beyond any
RowSeconds = Annotated[int, Field(strict=True, ge=1, le=DAY)]
FIELDS = ("row", "question_id", "video_id", "type", "template", "words", "answer", "choices")


@dataclass
class Trained:
    """A model on the CPU, and what it was trained with.

    `changed`: those of the user's overrides that differ from the checkpoint. `trained_on`: the
    section `dataset` as trained. `dry_run`: on features of random extractor weights. `row_seconds`:
    between two rows of the features.
    """

    model: AVQAModel
    vocabulary: Vocabulary
    spec: DataSpec
    config: dict[str, Any]
    epoch: int
    changed: list[str]
    trained_on: dict[str, Any]
    dry_run: bool
    row_seconds: int


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
    """A file as it is; of a run folder its best checkpoint, of an exported folder its weights."""
    if not given.is_dir():
        return given
    return given / (WEIGHTS if (given / WEIGHTS).exists() and not (given / "best.pt").exists() else "best.pt")


def load_trained(path: Path, overrides: Sequence[str] = ()) -> Trained:
    """UsageError naming the file where it is no checkpoint, or not one of today's options."""
    state = load_checkpoint(path)
    try:
        vocabulary = TypeAdapter(Vocabulary).validate_python(state["vocabulary"])
        spec = TypeAdapter(DataSpec).validate_python(state["spec"])
        check_sizes(spec, vocabulary)
        row_seconds = TypeAdapter(RowSeconds).validate_python(state.get("row_seconds", 1))
        dry_run = TypeAdapter(StrictBool).validate_python(state.get("dry_run", False))
        as_trained = override(state["config"], [])
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise UsageError(f"checkpoint {path} is damaged: its vocabulary, shapes or configuration cannot be read; give "
                         "another one") from error
    config = override(state["config"], overrides)
    changed = [item for item in overrides if override(state["config"], [item]) != as_trained]
    model = build_model(spec, config["backbone"], config["method"])
    load_weights(model, state["model"], path)
    return Trained(model, vocabulary, spec, config, state["epoch"], changed, as_trained["dataset"], dry_run,
                   row_seconds)


def check_sizes(spec: DataSpec, vocabulary: Vocabulary) -> None:
    """ValueError unless the sizes are such as a model can have, and those of the vocabulary."""
    sizes = [spec.segments, spec.audio_channels, spec.visual_channels, *spec.grid, spec.words]
    fit = all(0 < size <= LARGEST for size in sizes) and 0 <= min(spec.choices, spec.text_channels)
    read = [len(vocabulary.words), len(vocabulary.answers), vocabulary.length]
    fit = fit and max(spec.choices, spec.text_channels) <= LARGEST
    if not fit or [spec.vocabulary, spec.answers, spec.words] != read:
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


def start_from(model: nn.Module, state: dict[str, Any], vocabulary: dict[str, Any], path: Path,
               method: bool = False) -> str:
    """Take backbone and head from another run's checkpoint; returns a line on what was taken.

    `method`: and of the method all that has the same name and shape there.
    """
    if state["vocabulary"] != vocabulary:
        raise UsageError(f"train.init={path} was trained with another vocabulary; train it on this data set first")
    own = model.state_dict()
    fitting = {k for k in own if k in state["model"] and state["model"][k].shape == own[k].shape}
    wanted = {k for k in own if k.startswith(("backbone.", "head."))}
    unfit = sorted(wanted - fitting)
    if unfit:
        raise UsageError(f"train.init={path} does not fit this backbone: '{unfit[0]}' is missing or of another shape")
    if method:
        if fitting <= wanted < own.keys():
            raise UsageError(f"train.init={path} holds nothing of this method; set train.init_method=false")
        wanted = fitting
    model.load_state_dict({k: state["model"][k] for k in wanted}, strict=False)
    check_finite(model, path)
    parts = "backbone, head and method" if method else "backbone and head"
    return f"{len(wanted)} tensors of {parts} from {path}; {len(own) - len(wanted)} of the method start fresh"


def note_on_origin(state: dict[str, Any], annotations: dict[str, str], path: Path) -> str:
    """A warning on a start whose questions are all of another data set, else nothing.

    `annotations`: the digests of the data set of this run; an old start has none.
    """
    was = state.get("annotations")
    if not isinstance(was, dict) or any(was.get(split, now) == now for split, now in annotations.items()):
        return ""
    data = state["config"].get("dataset", {})
    name = " ".join(f"dataset.{key}={shown(data[key])}" for key in ("name", "label", "root") if data.get(key))
    return (f"warning: train.init={path} was trained on another data set ({name}) of the same vocabulary; if it is not "
            "meant, give a start of this one")


def digests(data: Any) -> dict[str, str]:
    """SHA-256 of the questions that training reads, by split."""
    return {split: digest(data.questions(split)) for split in ("train", "val")}


def digest(questions: list) -> str:
    """SHA-256 of the questions; a sound of their own counts where they have one."""
    content = [[getattr(question, name) for name in FIELDS] + [question.sound] * bool(question.sound)
               for question in questions]
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

    The length may not where the learning rate depends on it. An option younger than the run had its
    default.
    """
    free = {"patience", "log_every"} | ({"epochs", "max_steps"} if not depends_on_length(config["train"]) else set())
    with suppress(UsageError, KeyError, TypeError):          # else as it is: it no longer fits, and differs
        saved = override(saved, [])
    for section in (*REGISTRIES, "train"):
        for key, value in config[section].items():
            was = saved.get(section, {}).get(key)
            if was != value and not (section == "train" and key in free):
                raise UsageError(f"{path} is of another configuration: {section}.{key} was {was!r}, now {value!r}; "
                                 "choose another folder with run.name=NAME, or delete that one")
