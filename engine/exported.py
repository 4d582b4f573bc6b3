"""A model in the layout of the Hugging Face hub: weights, configuration, vocabulary, card."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from safetensors.torch import load_file, save_file

from dataset.files import refuse_special, write_json, write_text, write_whole

WEIGHTS, CONFIG, VOCABULARY, CARD = "model.safetensors", "config.json", "vocabulary.json", "README.md"
KEPT = ("format", "config", "spec", "epoch", "dry_run", "row_seconds")
PATHS = {("dataset", "root"): 1, ("run", "root"): 1, ("train", "init"): 2}   # how much of an absolute path is kept


def without_machine(config: dict[str, Any]) -> dict[str, Any]:
    """The configuration with the last parts of absolute paths alone, which name their owner."""
    kept = {section: dict(options) for section, options in config.items()}
    for (section, key), parts in PATHS.items():
        path = Path(kept[section].get(key) or "")
        if path.is_absolute():
            kept[section][key] = "/".join(path.parts[-parts:])
    return kept


def write_exported(folder: Path, state: dict[str, Any], card: str) -> None:
    """The content of a checkpoint as files of `folder`; weights last, whole or not at all."""
    weights = {name: value.contiguous().clone() for name, value in state["model"].items()}
    (folder / WEIGHTS).unlink(missing_ok=True)       # those of before fit neither configuration nor vocabulary
    write_json(folder / CONFIG, {key: state[key] for key in KEPT if key in state})
    write_json(folder / VOCABULARY, state["vocabulary"])
    write_text(folder / CARD, card)
    write_whole(folder / WEIGHTS, lambda temporary: save_file(weights, temporary, metadata={"format": "pt"}))


def read_exported(path: Path) -> dict[str, Any]:
    """The content of a checkpoint from the weights at `path` and the files beside them."""
    for name in (CONFIG, VOCABULARY):
        refuse_special(path.with_name(name))
    state = json.loads(path.with_name(CONFIG).read_bytes())
    vocabulary = json.loads(path.with_name(VOCABULARY).read_bytes())
    return {**state, "vocabulary": vocabulary, "model": load_file(path)}
