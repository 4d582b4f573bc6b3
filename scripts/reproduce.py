"""Run what a table or figure needs, skip what is done, write Markdown, JSON and plots.

A table is a file below configs/tables: a start configuration, the configuration all rows share, and
per row the overrides that make it. A row is trained once per seed, from the start of its own data,
backbone and seed, or tests the model of another row. Runs with the same resolved configuration are
one run, whichever tables ask for it; its folder is named by a digest of that configuration. A sweep
that was stopped continues when the same command is given again.
"""

from __future__ import annotations

import argparse
import json
import os
import shlex
import sys
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

from dataset.types import DataError
from engine.errors import UsageError, positive, run_guarded
from models.errors import OptionError
from scripts.tables.collect import collect
from scripts.tables.cost import add_costs
from scripts.tables.documents import REPORTS, documents, refresh
from scripts.tables.grid import SETS, Grid, chosen_dataset, find_grid, table_names
from scripts.tables.plan import Plan, PlannedRun
from scripts.tables.render import write_report
from scripts.tables.sweep import Failure, Sweep, plan_line
from scripts.tables.timing import estimate, hours_table

EPILOG = """examples:
  python scripts/reproduce.py --list
  python scripts/reproduce.py embedded --seeds 3 --jobs 2
  python scripts/reproduce.py all dataset=music_avqa dataset.root=DIR       schedule: configs/paper.yaml
  python scripts/reproduce.py all --shard 2/8             the second of eight machines that share runs/
  python scripts/reproduce.py all --plan > runs.jsonl     one line per run, for a scheduler
  python scripts/reproduce.py table4 --report-only        the report of what is done by now
  python scripts/reproduce.py recall --report-only --out docs/reports   into the documents, whose tables follow
more: docs/reproduce.md"""


def shard(text: str) -> tuple[int, int]:
    """"2/8" -> (2, 8)."""
    index, _, count = text.partition("/")
    if not (index.isdigit() and count.isdigit() and 1 <= int(index) <= int(count)):
        raise argparse.ArgumentTypeError(f"expected I/N with 1 <= I <= N, such as 2/8, got '{text}'")
    return int(index), int(count)


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, epilog=EPILOG,
                                     formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("table", nargs="?", help="a name of --list, a file TABLE.yaml, or a set of them: 'recall', "
                        "on what stands in for a missing modality, or 'all' the others")
    parser.add_argument("overrides", nargs="*", metavar="key=value",
                        help="applied to every run, so valid for all of them; a row's own win")
    parser.add_argument("--seeds", type=positive, help="seeds 1..N (default: the table's, else 3)")
    parser.add_argument("--jobs", type=positive, default=1, help="runs at a time, which share the cores (default 1)")
    parser.add_argument("--shard", type=shard, default=(1, 1), metavar="I/N", help="only part I of N of the runs")
    parser.add_argument("--out", type=Path, help="folder of the reports, as TABLE (default: run.root, as "
                        "report-TABLE); docs/reports also writes the tables of README.md and docs/*.md again")
    parser.add_argument("--untimed", action="store_true", help="with --plan: measure nothing; seconds are null")
    what = parser.add_mutually_exclusive_group()
    what.add_argument("--list", action="store_true", help="print the tables and stop")
    what.add_argument("--plan", action="store_true", help="print one JSON line per run (name, command, depends_on, "
                      "seconds) and the hours of every table, estimated from steps measured now, and stop")
    what.add_argument("--report-only", action="store_true", help="train nothing; report what is done")
    what.add_argument("--refresh-docs", action="store_true",
                      help="write the tables of README.md and docs/*.md again from docs/reports, and stop")
    options = parser.parse_intermixed_args()
    if options.table is not None and options.refresh_docs:
        parser.error("--refresh-docs takes no table: it writes all that stand between markers")
    if options.table is None and not (options.list or options.refresh_docs):
        parser.error(f"which table? One of: {', '.join([*table_names(), *SETS])}, or a file TABLE.yaml")
    return options


def grids_of(tables: str, overrides: list[str]) -> dict[str, Grid]:
    """The tables of a set for the data set that `overrides` choose, else the embedded benchmark."""
    dataset = chosen_dataset(overrides) or "synthetic"
    grids = dict(find_grid(name) for name in table_names(tables))
    fitting = {name: grid for name, grid in grids.items() if grid.is_for(dataset)}
    if left_out := [name for name in grids if name not in fitting]:
        print(f"left out, not for dataset={dataset}: {', '.join(left_out)}", file=sys.stderr)
    if not fitting:
        raise UsageError(f"no table of '{tables}' is for dataset={dataset}; see --list for the others")
    return fitting


def write_reports(grids: dict[str, Grid], plan: Plan, out: Path | None, partial: bool) -> list[str]:
    """Report every table; returns what was in the way of those that could not be written.

    `partial`: other machines work on the same tables; one without a finished run is no problem.
    """
    command, problems = shlex.join(["python", "scripts/reproduce.py", *sys.argv[1:]]), []
    for name, grid in grids.items():
        root = next(run.folder.parent for by_seed in plan.tables[name].values() for run in by_seed.values())
        try:
            report = collect(name, grid, plan.tables[name])
            if partial and not report["runs"]:
                continue
            if not report["runs"]:
                raise UsageError(f"no run of table {name} is done; there is nothing to report")
            if grid.costs:
                add_costs(report, plan.tables[name])
            path = write_report(report, grid, out / name if out else root / f"report-{name}", command)
        except (UsageError, DataError, OptionError) as error:
            problems.append(str(error))
            continue
        results = path.read_text(encoding="utf-8").split("\n## ")[1].partition("\n\n")[2]
        print(f"{grid.title}\n\n{results}\n\nreport: {path}\n", flush=True)
    if out == REPORTS:
        try:
            refresh_documents()
        except UsageError as error:
            problems.append(str(error))
    return problems


def refresh_documents() -> None:
    """Write the tables between markers again and name the files that changed."""
    changed = refresh(documents(), REPORTS)
    print("tables written again: " + (", ".join(os.path.relpath(path, ROOT) for path in changed) or "none had changed"))


def print_plan(plan: Plan, runs: list[PlannedRun], jobs: int, start_up: float | None) -> None:
    """One JSON line per run on stdout, to be piped; the hours of the tables on stderr.

    `start_up`: seconds that a run's imports take, None to measure nothing.
    """
    started, timed = time.monotonic(), start_up is not None
    seconds = estimate(runs, jobs, start_up) if timed else dict.fromkeys(run.name for run in runs)
    for run in runs:
        print(json.dumps(plan_line(run, seconds[run.name])), flush=True)
    if timed:
        tables = {name: [run for run in runs if any(user.startswith(f"{name}/") for user in run.users)]
                  for name in plan.tables}
        print(f"{hours_table(tables, runs, seconds, jobs)}\n\nEstimated in {time.monotonic() - started:.0f} s from "
              "steps measured on random features here and now. A run that several tables need counts in each of them, "
              "and once in all together.", file=sys.stderr)


def conclude(failures: list[Failure], problems: list[str]) -> None:
    """Print what went wrong; exit with 1 where runs failed, with 2 where files cannot be used."""
    for failure in failures:
        print(f"failed: {failure}", file=sys.stderr)
    for problem in problems:
        print(f"error: {problem}", file=sys.stderr)
    if failures:
        print(f"{len(failures)} runs failed; the same command tries them again", file=sys.stderr)
    if failures or problems:
        sys.exit(1 if failures else 2)


def main() -> None:
    start_up = time.process_time()           # until here there were imports alone, nearly those of a run
    options = parse()
    if options.list:
        for tables in SETS:
            print(f"{tables}:")
            for name in table_names(tables):
                print(f"  {name:16} {find_grid(name)[1].title}")
        return
    if options.refresh_docs:
        return refresh_documents()
    one = options.table not in SETS
    grids = dict([find_grid(options.table)]) if one else grids_of(options.table, options.overrides)
    out = options.out.resolve() if options.out else None
    os.chdir(ROOT)
    plan = Plan()
    for name, grid in grids.items():
        plan.add_table(name, grid, options.seeds, options.overrides)
    runs = plan.shard(*options.shard)
    if options.plan:
        return print_plan(plan, runs, options.jobs, None if options.untimed else start_up)
    failures = [] if options.report_only else Sweep(runs, options.jobs).execute()
    conclude(failures, write_reports(grids, plan, out, partial=options.shard[1] > 1))


if __name__ == "__main__":
    run_guarded(main, resumable=True)
