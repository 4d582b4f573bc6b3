"""Why a run answers as it does without a modality: what it writes in its place, how sharply it recalls, how many diffusion
steps help, how far its confidence can be trusted. Writes diagnosis.json beside the checkpoint and prints tables.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import Any

from tabulate import tabulate

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

from dataset import SCENARIOS  # noqa: E402
from dataset.files import write_json, write_text  # noqa: E402
from engine.diagnosis import accuracy_by_steps, calibration, examine_features  # noqa: E402
from engine.errors import run_guarded  # noqa: E402
from engine.evaluation import predict  # noqa: E402
from engine.metrics import percentage  # noqa: E402
from engine.restore import restore  # noqa: E402


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("runs", nargs="+", metavar="RUN|key=value", help="run folders or checkpoints, then overrides such "
                        "as dataset.root=DIR runtime.device=cpu")
    parser.add_argument("--split", choices=("val", "test"), default="test")
    parser.add_argument("--steps", action="store_true", help="also answer with 1, 2, ... diffusion steps (slow)")
    parser.add_argument("--out", type=Path, help="write the tables as Markdown into this file as well")
    return parser.parse_args()


def diagnose(path: Path, overrides: list[str], options: argparse.Namespace) -> dict[str, Any]:
    """Everything that is measured on one checkpoint, as written to diagnosis.json."""
    run = restore(path, overrides)
    where = (run.model, run.data, options.split, run.vocabulary, run.accelerator, run.config["evaluate"]["batch_size"],
             run.config["runtime"]["workers"])
    answers = {}
    for name in ("complete", "audio_missing", "visual_missing"):
        records = predict(*where[:3], SCENARIOS[name], *where[3:])
        answers[name] = {"accuracy": percentage(r.correct for r in records), "ece": calibration(records)}
    return {"checkpoint": str(path), "split": options.split, "answers": answers, "features": examine_features(*where),
            "by_steps": accuracy_by_steps(*where) if options.steps else {}}


def number(value: float | None, digits: int = 3) -> str:
    return "-" if value is None else f"{value:.{digits}f}"


def tables(found: dict[str, dict[str, Any]]) -> str:
    """Markdown of all runs: answers, stand-ins, addressing, steps; then R2 by question type."""
    answers = [[run, scenario, number(c["accuracy"], 1), number(c["ece"], 1)]
               for run, d in found.items() for scenario, c in d["answers"].items()]
    parts = [("Answers and their calibration (percent)", ["run", "scenario", "accuracy", "ECE"], answers)]
    stand_ins, by_type, sharp = [], [], []
    for run, scenario, stage, modality, cells in stages_of(found):
        place = [run, scenario.replace("_", " "), stage, modality]
        stand_ins.append([*place, number(cells["all"]["r2"]), number(cells["all"]["spread"])])
        by_type += [[*place, type_, number(c["r2"])] for type_, c in cells.items() if type_ != "all"]
    for run, d in found.items():
        sharp += [[run, scenario, number(c["addressing"]["entropy"], 5), number(c["addressing"]["effective_slots"], 1),
                   number(c["addressing"]["largest_weight_times_slots"], 2)]
                  for scenario, c in d["features"].items() if c["addressing"]]
    head = ["run", "scenario", "stage", "modality"]
    parts.append(("Stand-ins against the real features", [*head, "R2", "spread / real spread"], stand_ins))
    parts.append(("Slot addressing", ["run", "scenario", "entropy / log K", "slots in effect", "largest weight x K"], sharp))
    steps = [[run, scenario, *(number(v, 1) for v in c.values())]
             for run, d in found.items() for scenario, c in d["by_steps"].items()]
    longest = max((len(r) - 2 for r in steps), default=0)
    parts.append(("Accuracy by number of diffusion steps at test", ["run", "scenario", *range(1, longest + 1)], steps))
    parts.append(("R2 by question type", [*head, "type", "R2"], by_type))
    shown = [f"### {title}\n\n{tabulate(rows, headers=header, tablefmt='github', disable_numparse=True)}\n"
             for title, header, rows in parts if rows]
    return "\n".join(shown)


def stages_of(found: dict[str, dict[str, Any]]):
    """Every (run, scenario, stage, modality, cells) of which the stand-in differs from the real feature."""
    for run, d in found.items():
        for scenario, content in d["features"].items():
            for stage, modalities in content["stages"].items():
                for modality, cells in modalities.items():
                    if cells["all"]["r2"] != 1:
                        yield run, scenario, stage, modality, cells


def main() -> None:
    options = parse()
    overrides = [item for item in options.runs if "=" in item]
    found = {}
    for run in (Path(item) for item in options.runs if "=" not in item):
        path = run / "best.pt" if run.is_dir() else run
        found[path.parent.name] = diagnose(path, overrides, options)
        write_json(path.parent / "diagnosis.json", found[path.parent.name])
        print(f"written: {path.parent / 'diagnosis.json'}")
    text = tables(found)
    print(text)
    if options.out:
        command = " ".join(["python scripts/diagnose.py", *sys.argv[1:]])
        write_text(options.out, f"`{command}`\n\n{text}")


if __name__ == "__main__":
    run_guarded(main)
