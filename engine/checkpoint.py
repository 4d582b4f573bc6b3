"""Checkpoints: weights, states of the training, vocabulary and configuration in one file."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from dataset.files import refuse_special, write_whole
from engine.errors import UsageError
from engine.exported import read_exported
from engine.legacy import upgrade

FORMAT = 4
UNREADABLE = Exception       # of a damaged file, or one of another kind, torch and pickle raise nearly anything
REQUIRED = {"format": int, "config": dict, "vocabulary": dict, "spec": dict, "model": dict, "epoch": int}


def save_checkpoint(path: Path, state: dict[str, Any]) -> None:
    """Write `state` whole or not at all; an earlier checkpoint survives a failure."""
    try:
        write_whole(path, lambda temporary: torch.save({"format": FORMAT, **state}, temporary))
    except RuntimeError as error:      # what torch makes of a full disk
        free = shutil.disk_usage(path.parent).free
        needed = sum(t.nbytes for t in state["model"].values()) * (3 if "optimiser" in state else 1)
        hint = "; free some space and run the same command again" if free < needed else ""
        raise UsageError(f"cannot write the checkpoint {path}: {str(error).splitlines()[0]}{hint}") from error


def load_checkpoint(path: Path, mmap: bool = False) -> dict[str, Any]:
    """Read a checkpoint on the CPU; nothing but tensors and plain values is unpickled.

    With `mmap` a tensor is read from the file when it is used. UsageError naming the file.
    """
    refuse_special(path)
    if not path.is_file():
        raise UsageError(f"checkpoint {path} does not exist; give a run folder or a file such as runs/NAME/best.pt")
    try:
        exported = path.suffix == ".safetensors"
        state = read_exported(path) if exported else torch.load(path, map_location="cpu", weights_only=True, mmap=mmap)
    except OSError:
        raise
    except UNREADABLE as error:
        raise UsageError(f"checkpoint {path} is damaged or not a checkpoint of this project "
                         f"({type(error).__name__}); delete it or give another one") from error
    state = state if isinstance(state, dict) else {}
    lacking = [key for key, kind in REQUIRED.items() if not isinstance(state.get(key), kind)]
    lacking = lacking or [f"config.{k}" for k, v in state["config"].items() if not isinstance(v, dict)]
    if lacking or state["format"] not in range(1, FORMAT + 1):
        raise UsageError(f"checkpoint {path} is not a checkpoint of this version (expected format {FORMAT}; lacks "
                         f"{', '.join(lacking) or 'nothing'}); train again or give another one")
    try:
        json.dumps([state["config"], state["vocabulary"], state["spec"], state.get("annotations")])
    except (ValueError, TypeError, RecursionError) as error:
        raise UsageError(f"checkpoint {path} is damaged: its configuration, vocabulary or shapes are no plain values; "
                         "give another one") from error
    bad = [k for k, v in state["model"].items() if not isinstance(v, Tensor) or v.layout != torch.strided]
    if bad:
        raise UsageError(f"checkpoint {path} is damaged: its weight {bad[0]!r} is no tensor; give another one")
    if state["format"] < FORMAT:
        try:
            state = {**upgrade(state), "format": FORMAT}
        except UsageError as error:
            raise UsageError(f"checkpoint {path} cannot be used: {error}") from error
        except UNREADABLE as error:
            raise UsageError(f"checkpoint {path} is damaged: its configuration lacks {error}; give another "
                             "one") from error
    return state


def load_weights(model: nn.Module, state: dict[str, Tensor], path: Path) -> None:
    """Every entry must fit and be finite; the error names the first that is not."""
    try:
        model.load_state_dict(state, strict=True)
    except UNREADABLE as error:
        detail = " ".join(str(error).split())[:300]
        raise UsageError(f"checkpoint {path} is of another configuration: {detail}") from error
    check_finite(model, path)


def check_finite(model: nn.Module, path: Path) -> None:
    """UsageError naming the first of the weights from `path` that is NaN or infinite."""
    for name, value in model.state_dict().items():
        if not bool(value.isfinite().all()):
            raise UsageError(f"checkpoint {path} cannot be used: its weight '{name}' holds NaN or infinity, the "
                             "training diverged; train again with a smaller train.learning_rate")
