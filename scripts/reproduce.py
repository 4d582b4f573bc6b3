"""Run what a table needs, skip what is done, write the table as Markdown and JSON.

A table is a file configs/tables/TABLE.yaml: a start configuration, the configuration all rows share, and per row the
overrides that make it. Every row is trained with the same number of steps from the same start, once per seed.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from threading import Semaphore
from typing import Any

import yaml
from tabulate import tabulate

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

from dataset.files import write_json, write_text  # noqa: E402
from engine.errors import UsageError, run_guarded  # noqa: E402


def parse() -> argparse.Namespace:
    tables = sorted(p.stem for p in (ROOT / "configs" / "tables").glob("*.yaml"))
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("table", choices=tables)
    parser.add_argument("--seeds", type=int, default=3, help="seeds 1..N (default 3)")
    parser.add_argument("--jobs", type=int, default=1, help="runs at a time, one thread each where above 1")
    parser.add_argument("overrides", nargs="*", metavar="key=value", help="applied to every run")
    return parser.parse_args()


def train(name: str, arguments: list[str], threads: int | None, slots: Semaphore) -> Path:
    """One run as a process of its own, skipped when its results are there; returns its folder."""
    folder = Path("runs") / name
    if (folder / "results.json").is_file():
        return folder
    folder.mkdir(parents=True, exist_ok=True)
    environment = dict(os.environ, **({"OMP_NUM_THREADS": str(threads)} if threads else {}))
    command = [sys.executable, str(ROOT / "main_train.py"), *arguments, f"run.name={name}"]
    with slots, open(folder / "log.txt", "a") as log:
        code = subprocess.run(command, stdout=log, stderr=subprocess.STDOUT, env=environment).returncode
    if code:
        print(f"failed ({code}): {' '.join(command)}; see {folder / 'log.txt'}", file=sys.stderr, flush=True)
    return folder


def run_seed(table: dict[str, Any], rows: dict[str, list[str]], name: str, seed: int, options: argparse.Namespace,
             pool: ThreadPoolExecutor, slots: Semaphore) -> dict[str, Any]:
    """Start the rows of one seed once their common start is trained."""
    threads = 1 if options.jobs > 1 else None
    start = train(f"{name}-start-s{seed}", [table["start"], f"train.seed={seed}", *options.overrides], threads, slots)
    common = [table["rows_from"], f"train.seed={seed}", f"train.init={start}/best.pt", *options.overrides]
    return {row: pool.submit(train, f"{name}-{row}-s{seed}", [*common, *extra], threads, slots)
            for row, extra in rows.items()}


def collect(name: str, rows: dict[str, list[str]], seeds: int) -> dict[str, dict[str, dict[str, Any]]]:
    """Row -> scenario -> accuracies over seeds, floor and oracle, of every run that is done."""
    found: dict[str, dict[str, dict[str, Any]]] = {}
    for row in rows:
        for seed in range(1, seeds + 1):
            path = Path("runs") / f"{name}-{row}-s{seed}" / "results.json"
            if not path.is_file():
                continue
            for scenario, result in json.loads(path.read_text())["scenarios"].items():
                cell = found.setdefault(row, {}).setdefault(scenario, {"accuracies": []})
                cell["accuracies"].append(result["overall"])
                cell["floor"], cell["oracle"] = result["question_only_floor"], result["oracle"]
    return found


def render(found: dict[str, dict[str, dict[str, Any]]], table: dict[str, Any], command: str) -> str:
    """Markdown: mean and standard deviation over seeds, floor and oracle below."""
    scenarios = list(dict.fromkeys(s for cells in found.values() for s in cells))
    lines = []
    for row, cells in found.items():
        seeds = max(len(c["accuracies"]) for c in cells.values())
        lines.append([table["rows"][row]["label"], seeds, *(spread(cells[s]["accuracies"]) for s in scenarios)])
    any_row = next(iter(found.values()))
    for label, key in (("Bayes oracle", "oracle"), ("question-only floor", "floor")):
        values = [any_row[s][key] for s in scenarios]
        lines.append([label, "", *("-" if v is None else f"{v:.1f}" for v in values)])
    head = ["", "seeds", *(s.replace("_", " ") for s in scenarios)]
    return f"{table['title']}\n\n`{command}`\n\n{tabulate(lines, headers=head, tablefmt='github')}\n"


def spread(values: list[float]) -> str:
    deviation = f" ± {statistics.stdev(values):.1f}" if len(values) > 1 else ""
    return f"{statistics.mean(values):.1f}{deviation}"


def main() -> None:
    options = parse()
    if options.seeds < 1 or options.jobs < 1:
        raise UsageError("--seeds and --jobs must be at least 1")
    os.chdir(ROOT)
    table = yaml.safe_load((ROOT / "configs" / "tables" / f"{options.table}.yaml").read_text())
    rows = {row: content["overrides"] for row, content in table["rows"].items()}
    command = f"python scripts/reproduce.py {' '.join(sys.argv[1:])}"
    report = Path("runs") / f"table-{options.table}"
    with ThreadPoolExecutor(options.jobs) as pool, ThreadPoolExecutor(options.jobs) as starts:
        seeds, slots = range(1, options.seeds + 1), Semaphore(options.jobs)
        for jobs in starts.map(lambda s: run_seed(table, rows, options.table, s, options, pool, slots), seeds):
            for row, job in jobs.items():
                print(f"done: {job.result()} ({row})", flush=True)
                found = collect(options.table, rows, options.seeds)
                if found:
                    write_json(report / "table.json", {"command": command, "rows": found})
                    write_text(report / "table.md", render(found, table, command))
    if not collect(options.table, rows, options.seeds):
        raise UsageError(f"no run of {options.table} succeeded; see runs/{options.table}-*/log.txt")
    print((report / "table.md").read_text())


if __name__ == "__main__":
    run_guarded(main)
