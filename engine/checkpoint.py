"""Checkpoints: weights, optimiser, schedule, random states, vocabulary and configuration in one file."""

from __future__ import annotations

import pickle
import zipfile
from pathlib import Path
from typing import Any

import torch

from dataset.files import write_whole
from engine.errors import UsageError
from engine.legacy import upgrade

FORMAT = 2
# What torch.load raises on a file that is damaged, or holds more than tensors and plain values.
UNREADABLE = (RuntimeError, pickle.UnpicklingError, EOFError, zipfile.BadZipFile, ValueError, KeyError)
REQUIRED = ("format", "config", "vocabulary", "spec", "model", "epoch")


def save_checkpoint(path: Path, state: dict[str, Any]) -> None:
    """Write `state` whole or not at all; an earlier checkpoint survives a failure."""
    try:
        write_whole(path, lambda temporary: torch.save({"format": FORMAT, **state}, temporary))
    except RuntimeError as error:      # torch reports a full disk as a RuntimeError of its zip writer
        raise UsageError(f"cannot write the checkpoint {path}: {str(error).splitlines()[0]}; free some space and run "
                         "the same command again, it continues from the last finished epoch") from error


def load_checkpoint(path: Path, mmap: bool = False) -> dict[str, Any]:
    """Read a checkpoint on the CPU. Nothing but tensors and plain values is unpickled (`weights_only`).

    With `mmap` a tensor is read from the file when it is used, which is less where few of them are.
    """
    if not path.is_file():
        raise UsageError(f"checkpoint {path} does not exist; give a run folder or a file such as runs/NAME/best.pt")
    try:
        state = torch.load(path, map_location="cpu", weights_only=True, mmap=mmap)
    except UNREADABLE as error:
        raise UsageError(f"checkpoint {path} is damaged or not a checkpoint of this project "
                         f"({type(error).__name__}); delete it or give another one") from error
    lacking = [k for k in REQUIRED if not isinstance(state, dict) or k not in state]
    if not lacking and state["format"] == 1:
        try:
            state = {**upgrade(state), "format": FORMAT}
        except (KeyError, TypeError, AttributeError) as error:
            raise UsageError(f"checkpoint {path} is damaged: its configuration lacks {error}; give another one") from error
    if lacking or state["format"] != FORMAT:
        raise UsageError(f"checkpoint {path} is not a checkpoint of this version (expected format {FORMAT}; lacks "
                         f"{', '.join(lacking) or 'nothing'}); train again or give another one")
    return state


def load_weights(model: torch.nn.Module, state: dict[str, torch.Tensor], path: Path) -> None:
    """Every entry must fit; the error names the first that does not."""
    try:
        model.load_state_dict(state, strict=True)
    except RuntimeError as error:
        detail = " ".join(str(error).split())[:300]
        raise UsageError(f"checkpoint {path} is of another configuration: {detail}") from error


def start_from(model: torch.nn.Module, state: dict[str, Any], vocabulary: dict[str, Any], path: Path,
               method: bool = False) -> str:
    """Take backbone and head from another run's checkpoint; returns what was taken and what stays fresh.

    `method`: and of the method all that has the same name and shape there.
    """
    if state["vocabulary"] != vocabulary:
        raise UsageError(f"train.init={path} was trained with another vocabulary (its {len(state['vocabulary']['words'])}"
                         f" words, {len(state['vocabulary']['answers'])} answers); train it on this data set first")
    own = model.state_dict()
    wanted = {k for k in own if k.startswith(("backbone.", "head."))}
    unfit = [k for k in sorted(wanted) if k not in state["model"] or state["model"][k].shape != own[k].shape]
    if unfit:
        raise UsageError(f"train.init={path} does not fit this backbone: '{unfit[0]}' is missing or of another shape")
    if method:
        shared = {k for k in own if k in state["model"] and state["model"][k].shape == own[k].shape}
        if shared <= wanted:
            raise UsageError(f"train.init={path} holds nothing of this method; set train.init_method=false")
        wanted |= shared
    model.load_state_dict({k: state["model"][k] for k in wanted}, strict=False)
    parts = "backbone, head and method" if method else "backbone and head"
    return f"{len(wanted)} tensors of {parts} from {path}; {len(own) - len(wanted)} of the method start fresh"
