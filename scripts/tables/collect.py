"""Run folders to the figures of a table: accuracies by row, scenario and seed, and the tests between rows."""

from __future__ import annotations

import json
import shlex
import statistics as summary
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

from engine.errors import UsageError
from engine.metrics import accuracies
from scripts.tables.diffusion_loss import has_avr, last_ave, lowest_ave
from scripts.tables.grid import Grid, Published
from scripts.tables.plan import Run
from scripts.tables.statistics import Answers, Comparison, compare, correct
from scripts.tables.sweep import command_of

Read = TypeVar("Read")


@dataclass
class Cell:
    """One row in one scenario, by seed, in percent. `groups`: accuracy by question type and by modality."""

    values: dict[int, float] = field(default_factory=dict)
    groups: dict[str, dict[int, float]] = field(default_factory=dict)
    questions: int = 0
    floor: float | None = None
    oracle: float | None = None
    published: Published | None = None

    @property
    def shares(self) -> list[float]:
        """Per seed the share of the gap between floor and oracle that is recovered, in percent; empty if unknown."""
        if self.floor is None or self.oracle is None or self.oracle <= self.floor:
            return []
        return [100 * (value - self.floor) / (self.oracle - self.floor) for value in self.values.values()]

    @property
    def beside_paper(self) -> float | None:
        """Our mean minus the published figure."""
        if self.published is None or self.published.overall is None or not self.values:
            return None
        return mean(self.values.values()) - self.published.overall


@dataclass
class Ave:
    """L_ave of one row in the last epoch, by seed, and the value it cannot fall below; None where there is none."""

    values: dict[int, float] = field(default_factory=dict)
    bound: float | None = None


@dataclass(frozen=True)
class RunInfo:
    """Where one figure comes from."""

    row: str
    seed: int
    name: str
    digest: str
    command: str
    start: str | None                # the command of the start
    dataset: str
    epoch: int
    environment: dict[str, Any]

    @property
    def code(self) -> str:
        return self.environment.get("code") or "unknown"


@dataclass
class Table:
    """All that a report says. `cells`: row -> scenario -> cell, rows without a finished run left out.

    `ave`: of the rows with AVR. `untested`: rows that are to be compared but have one seed with their reference.
    """

    name: str
    grid: Grid
    planned: int
    cells: dict[str, dict[str, Cell]] = field(default_factory=dict)
    runs: list[RunInfo] = field(default_factory=list)
    comparisons: list[Comparison] = field(default_factory=list)
    ave: dict[str, Ave] = field(default_factory=dict)
    untested: list[str] = field(default_factory=list)

    @property
    def scenarios(self) -> list[str]:
        return list(dict.fromkeys(scenario for cells in self.cells.values() for scenario in cells))


def mean(values) -> float:
    return summary.mean(values)


def spread(values) -> float | None:
    """Sample standard deviation, None of a single value."""
    values = list(values)
    return summary.stdev(values) if len(values) > 1 else None


def read(path: Path, parse: Callable[[str], Read]) -> Read:
    """A file of a run folder, parsed; one clear error when it is damaged."""
    try:
        return parse(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, LookupError, TypeError) as error:
        raise UsageError(f"{path} cannot be read ({type(error).__name__}: {error}); delete the folder {path.parent} and "
                         "run again") from error


def collect(name: str, grid: Grid, planned: dict[str, dict[int, Run]]) -> Table:
    """The table as far as its runs are done. `planned`: row -> seed -> run."""
    table = Table(name, grid, planned=sum(len(by_seed) for by_seed in planned.values()))
    done = {row: {seed: run for seed, run in by_seed.items() if run.done} for row, by_seed in planned.items()}
    for row, by_seed in done.items():
        for seed, run in by_seed.items():
            results = read(run.folder / "results.json", json.loads)
            table.runs.append(info(row, seed, run, results))
            add_ave(table, row, seed, run, results["config"])
            for scenario, result in results["scenarios"].items():
                if scenario in (grid.scenarios or run.scenarios):
                    cell = table.cells.setdefault(row, {}).setdefault(scenario, Cell())
                    add(cell, seed, result)
                    cell.published = grid.figures(row).get(scenario)
    table.comparisons = correct(tests(grid, done, table))
    return table


def add_ave(table: Table, row: str, seed: int, run: Run, config: dict[str, Any]) -> None:
    """L_ave of a run that has one; nothing where its log was not kept."""
    metrics = run.folder / "metrics.jsonl"
    if has_avr(config) and metrics.is_file():
        cell = table.ave.setdefault(row, Ave())
        cell.values[seed] = read(metrics, last_ave)
        bound = lowest_ave(config, run.folder / "best.pt")
        cell.bound = cell.bound if bound is None else bound


def add(cell: Cell, seed: int, result: dict[str, Any]) -> None:
    cell.values[seed] = result["overall"]
    cell.questions, cell.floor, cell.oracle = result["n"], result["question_only_floor"], result["oracle"]
    for name, accuracy in accuracies(result).items():
        cell.groups.setdefault(name, {})[seed] = accuracy


def info(row: str, seed: int, run: Run, results: dict[str, Any]) -> RunInfo:
    path = run.folder / "environment.json"
    environment = read(path, json.loads) if path.is_file() else {}
    start = shlex.join(command_of(run.depends_on)) if run.depends_on else None
    return RunInfo(row, seed, run.name, run.digest, shlex.join(command_of(run)), start,
                   results["config"]["dataset"]["name"], results["epoch"], environment)


def tests(grid: Grid, done: dict[str, dict[int, Run]], table: Table) -> list[Comparison]:
    """Every row against its references, in every scenario that both have; one seed alone is not tested."""
    cache: dict[str, dict[str, Answers]] = {}

    def answers(run: Run) -> dict[str, Answers]:
        if run.name not in cache:
            cache[run.name] = read(run.folder / "predictions.jsonl", parse_answers)
        return cache[run.name]

    found = []
    compared = [(key, reference) for key in table.cells for reference in grid.references(key)]
    for row, reference in compared:
        seeds = [seed for seed in done[row] if seed in done.get(reference, {})]
        if len(seeds) == 1 and row not in table.untested:
            table.untested.append(row)
        for scenario in table.cells[row] if len(seeds) > 1 else ():
            if scenario not in table.cells[reference]:
                continue
            pairs = [(answers(done[row][s])[scenario], answers(done[reference][s])[scenario]) for s in seeds]
            try:
                found.append(compare(row, reference, scenario, pairs))
            except ValueError as error:
                raise UsageError(f"table {table.name}, {scenario}: {error}; rows that are compared need the same test "
                                 "data") from error
    return found


def parse_answers(text: str) -> dict[str, Answers]:
    """predictions.jsonl: scenario -> question -> video and whether the answer is right."""
    found: dict[str, Answers] = {}
    for line in text.splitlines():
        record = json.loads(line)
        question = (record["row"], record["question_id"])
        found.setdefault(record["scenario"], {})[question] = (record["video_id"], record["correct"])
    return found
