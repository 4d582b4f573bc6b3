"""An official net_grd_avst state dict (AVST's, or the method's) to a run folder of this project.

An official checkpoint holds weights and nothing else. Its vocabulary comes from the training file
of the first release, in order of appearance, whatever release is evaluated: give dataset.root with
the official json/. Another order fits in shape and gives wrong answers, so dataset.annotations has
no say in it. Shapes are those of the official features.
"""

from __future__ import annotations

import argparse
import sys
from collections import Counter
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import torch

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

from dataset import build_dataset
from engine.checkpoint import UNREADABLE, save_checkpoint
from engine.config import compose
from engine.errors import UsageError, run_guarded
from models import build_model
from scripts.benchmark import MUSIC_AVQA
from scripts.study.convert import convert, has_method, steps_of


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("official", type=Path, help="the official file, e.g. avst.pt")
    parser.add_argument("out", type=Path, help="run folder to write best.pt into; then: bash test.sh OUT")
    parser.add_argument("--vocabulary", default="json", metavar="FOLDER",
                        help="folder below dataset.root of the checkpoint's training file (default json)")
    parser.add_argument("overrides", nargs="*", metavar="key=value", help="dataset.root=DIR and others; the "
                        "configuration is configs/released.yaml for the method's checkpoint, method=plain for AVST's")
    return parser.parse_intermixed_args()


def read(path: Path) -> dict[str, torch.Tensor]:
    """The state dict in `path`; nothing but tensors is unpickled."""
    if not path.is_file():
        raise UsageError(f"{path} does not exist; give the official checkpoint file")
    try:
        state = torch.load(path, map_location="cpu", weights_only=True)
    except UNREADABLE as error:
        raise UsageError(f"{path} is damaged, or holds more than tensors ({type(error).__name__}); save its state dict "
                         "with torch.save(model.state_dict(), FILE) where it was made") from error
    if not isinstance(state, dict) or not all(isinstance(value, torch.Tensor) for value in state.values()):
        raise UsageError(f"{path} is not a state dict: expected names with tensors")
    return state


def configure(official: dict[str, torch.Tensor], overrides: list[str]) -> dict[str, Any]:
    if not has_method(official):
        return compose(None, ["dataset=music_avqa", "method=plain", *overrides])
    steps = steps_of(official)
    given = [] if steps is None else [f"avr.steps={steps}"]
    return compose(str(ROOT / "configs" / "released.yaml"), [*given, *overrides])


def main() -> None:
    options = parse()
    official = read(options.official)
    config = configure(official, options.overrides)
    vocabulary = build_dataset(config["dataset"] | {"annotations": options.vocabulary}).vocabulary()
    spec = replace(MUSIC_AVQA, words=vocabulary.length, vocabulary=len(vocabulary.words),
                   answers=len(vocabulary.answers))
    torch.manual_seed(config["train"]["seed"])
    model = build_model(spec, config["backbone"], config["method"])
    state, unused = convert(official, model.state_dict())
    model.load_state_dict(state)
    path = options.out / "best.pt"
    save_checkpoint(path, {"config": config, "vocabulary": vocabulary.to_dict(), "spec": asdict(spec),
                           "model": model.state_dict(), "epoch": 0})
    print(f"{len(official) - len(unused)} of {len(official)} official entries are used; without a place here:")
    print("  " + (", ".join(summary(unused)) or "none"))
    print(f"written: {path}; its words and answers are those of {options.vocabulary}/. Evaluate it on "
          f"{config['dataset']['annotations']}/ with: bash test.sh {options.out}")


def summary(names: list[str]) -> list[str]:
    """How many entries of each top-level module."""
    return [f"{module} ({count})" for module, count in Counter(name.split(".")[0] for name in names).items()]


if __name__ == "__main__":
    run_guarded(main)
