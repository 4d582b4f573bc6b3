"""Why a run answers as it does without a modality: what it writes in its place, how sharply it
recalls, how many diffusion steps help, how far its confidence can be trusted, and what the official
evaluation protocol would have said. Writes diagnosis.json beside every checkpoint and prints
tables; runs of a table's row are averaged over its seeds.

  python scripts/diagnose.py runs/NAME --steps
  python scripts/diagnose.py --table released --seeds 3 --rows released,layout --out page.md
"""

from __future__ import annotations

import argparse
import os
import shlex
import sys
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

from engine.errors import UsageError, require, run_guarded

require("reports", "scipy")

from dataset.files import write_json, write_text
from engine.config import nearest
from engine.errors import positive
from engine.evaluation import variant
from engine.restore import checkpoint_in, restore
from scripts.study.diagnosis import accuracy_by_steps, answers_by_scenario, examine_features
from scripts.study.diagnosis_tables import as_markdown
from scripts.tables.grid import Grid, find_grid
from scripts.tables.plan import Plan
from scripts.tables.text import finite

AT_TEST = ("runtime.", "evaluate.")     # overrides of a table that its diagnosis takes over; others are for training


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("runs", nargs="*", metavar="RUN|key=value", help="run folders or checkpoints; overrides such "
                        "as dataset.root=DIR runtime.device=cpu")
    parser.add_argument("--table", help="instead of RUN: the finished runs of a table of scripts/reproduce.py")
    parser.add_argument("--rows", metavar="ROW,ROW", help="of that table; default: all")
    parser.add_argument("--seeds", type=positive, help="seeds 1..N of that table; default: the table's")
    parser.add_argument("--split", choices=("val", "test"), default="test")
    parser.add_argument("--steps", action="store_true", help="also answer with 1, 2, ... diffusion steps (slow)")
    parser.add_argument("--out", type=Path, help="write the tables as Markdown into this file as well")
    options = parser.parse_intermixed_args()
    if bool(options.table) == any("=" not in item for item in options.runs):
        parser.error("give either run folders or --table NAME")
    if not options.table and (options.rows or options.seeds):
        parser.error("--rows and --seeds choose runs of a --table")
    return options


def of_table(options: argparse.Namespace, name: str, grid: Grid, overrides: list[str]) -> dict[str, list[Path]]:
    """The checkpoints of a table's rows, by label, one per seed."""
    plan = Plan()
    plan.add_table(name, grid, options.seeds, overrides)
    checkpoints = {}
    for row in options.rows.split(",") if options.rows else grid.rows:
        if row not in grid.rows:
            raise UsageError(f"--rows: table {name} has no row '{row}'; {nearest(row, grid.rows)}")
        runs = list(plan.tables[name][row].values())
        lacking = [run.name for run in runs if not run.done]
        if lacking:
            command = ["python", "scripts/reproduce.py", options.table, "--seeds", str(len(runs)), *overrides]
            raise UsageError(f"row {row} of table {name} is not trained: {', '.join(lacking)} lacking; first run "
                             f"{shlex.join(command)}")
        checkpoints[grid.rows[row].label] = [run.folder / "best.pt" for run in runs]
    return checkpoints


def diagnose(path: Path, overrides: list[str], options: argparse.Namespace) -> dict[str, Any]:
    """Everything that is measured on one checkpoint, written to diagnosis.json beside it."""
    run = restore(path, overrides)
    measured = {"checkpoint": str(path), "split": options.split, "answers": answers_by_scenario(run, options.split),
                "features": examine_features(run, options.split),
                "by_steps": accuracy_by_steps(run, options.split) if options.steps else {}}
    written = path.parent / f"diagnosis{variant(path, options.split, run.changed)}.json"
    write_json(written, finite(measured))
    print(f"written: {written}")
    return measured


def main() -> None:
    options = parse()
    overrides = [item for item in options.runs if "=" in item]
    out = options.out.resolve() if options.out else None
    if options.table:
        name, grid = find_grid(options.table)
        os.chdir(ROOT)
        checkpoints = of_table(options, name, grid, overrides)
        overrides = [item for item in overrides if item.startswith(AT_TEST)]
    else:
        paths = [Path(item) for item in options.runs if "=" not in item]
        checkpoints = {str(path): [checkpoint_in(path)] for path in paths}
    measured = {label: [diagnose(path, overrides, options) for path in paths] for label, paths in checkpoints.items()}
    text = as_markdown(measured)
    print(text)
    if out:
        write_text(out, f"`{shlex.join(['python', 'scripts/diagnose.py', *sys.argv[1:]])}`\n\n{text}")


if __name__ == "__main__":
    run_guarded(main)
