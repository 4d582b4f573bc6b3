"""Finished runs as the content of report.json, from which report.md, plots and docs are made."""

from __future__ import annotations

import json
import shlex
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Any, NotRequired, TypeVar

from pydantic import TypeAdapter
from typing_extensions import TypedDict

from dataset.files import refuse_special
from engine.checkpoint import load_checkpoint
from engine.errors import UsageError
from engine.metrics import accuracies, calibration
from models.rmm_avr.diffusion import make_betas
from scripts.tables.grid import Grid, Published
from scripts.tables.plan import PlannedRun
from scripts.tables.statistics import Answers, Comparison, compare, correct
from scripts.tables.sweep import command_of
from scripts.tables.text import moments

Read = TypeVar("Read")
BySeed = dict[int, PlannedRun]
LAST_LAYER = "method.avr.diffusion.model.final_conv.weight"      # (C, width, 1), or (C, width, 1, 1) of a map


class Cell(TypedDict):
    """The questions of one type or modality in results.json."""

    accuracy: float
    n: int


class Result(TypedDict):
    """One scenario in results.json."""

    overall: float
    n: int
    question_only_floor: float | None
    oracle: float | None
    by_type: dict[str, Cell]
    by_modality: dict[str, Cell]


class Results(TypedDict):
    """What is read of results.json."""

    config: dict[str, dict[str, Any]]
    epoch: int
    scenarios: dict[str, Result]


class Line(TypedDict):
    """What is read of a line of predictions.jsonl."""

    row: int
    question_id: int
    video_id: str
    scenario: str
    correct: bool
    confidence: NotRequired[float]


def read(path: Path, parse: Callable[[str], Read]) -> Read:
    """A file of a run folder, parsed; one clear error when it is damaged."""
    refuse_special(path)
    try:
        return parse(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, LookupError, TypeError) as error:
        reason = " ".join(str(error).split())[:200]
        raise UsageError(f"{path} cannot be read ({type(error).__name__}: {reason}); delete the folder {path.parent} "
                         "and run again") from error


def collect(name: str, grid: Grid, planned: dict[str, BySeed]) -> dict[str, Any]:
    """The table as far as its runs are done; rows without a finished run are left out. `planned`:
    row -> seed -> run.

    `untested`: rows that are to be compared but have one seed with their reference.
    """
    done = {row: {seed: run for seed, run in by_seed.items() if run.done} for row, by_seed in planned.items()}
    results = {run.name: read(run.folder / "results.json", TypeAdapter(Results).validate_json)
               for by_seed in done.values() for run in by_seed.values()}
    rows = {row: row_of(grid, row, by_seed, results) for row, by_seed in done.items() if by_seed}
    runs = [origin(row, seed, run, results[run.name]) for row, by_seed in done.items() for seed, run in by_seed.items()]
    comparisons, untested = compare_rows(name, grid, done, rows)
    return {"title": grid.title, "runs_planned": sum(map(len, planned.values())), "runs_done": len(runs), "table": name,
            "rows": rows, "runs": runs, "untested": untested,
            "comparisons": [{**asdict(c), "verdict": c.verdict} for c in comparisons]}


def row_of(grid: Grid, row: str, by_seed: BySeed, results: dict[str, Any]) -> dict[str, Any]:
    """Label, cells by scenario, and L_ave in the last epoch with its two references."""
    cells: dict[str, dict[int, Any]] = {}
    for seed, run in by_seed.items():
        for scenario, result in results[run.name]["scenarios"].items():
            if scenario in (grid.scenarios or run.scenarios):
                cells.setdefault(scenario, {})[seed] = result
    scenarios = {s: cell_of(of_seed, grid.figures(row).get(s)) for s, of_seed in cells.items()}
    if grid.calibration:
        errors = [read(run.folder / "predictions.jsonl", calibration_errors) for run in by_seed.values()]
        for s, cell in scenarios.items():
            ece = moments([of_run[s] for of_run in errors if s in of_run])
            cell |= {"ece": ece["mean"], "ece_std": ece["std"]}
    return {"label": grid.rows[row].label, "scenarios": scenarios,
            "ave": ave_of({seed: (run.folder, results[run.name]["config"]) for seed, run in by_seed.items()})}


def cell_of(by_seed: dict[int, dict[str, Any]], published: Published | None) -> dict[str, Any]:
    """One row in one scenario, in percent. `gap_share`: the share of floor to oracle recovered."""
    values = {seed: result["overall"] for seed, result in by_seed.items()}
    last = list(by_seed.values())[-1]
    floor, oracle = last["question_only_floor"], last["oracle"]
    known = floor is not None and oracle is not None and oracle > floor
    shares = [100 * (value - floor) / (oracle - floor) for value in values.values()] if known else []
    gap = moments(shares) if shares else {"mean": None, "std": None}
    groups: dict[str, list[float]] = {}
    for result in by_seed.values():
        for name, accuracy in accuracies(result).items():
            groups.setdefault(name, []).append(accuracy)
    ours = moments(values.values())
    beside = None if published is None or published.overall is None else ours["mean"] - published.overall
    return {**ours, "seeds": len(values), "by_seed": values, "questions": last["n"], "floor": floor, "oracle": oracle,
            "gap_share": gap["mean"], "gap_share_std": gap["std"],
            "groups": {name: moments(accuracies) for name, accuracies in groups.items()},
            "published": published.model_dump() if published else None, "beside_paper": beside}


def ave_of(by_seed: dict[int, tuple[Path, dict[str, Any]]]) -> dict[str, Any] | None:
    """L_ave by seed, from each run's folder and configuration; None without AVR or a log."""
    values, bound, skip = {}, None, None
    for seed, (folder, config) in by_seed.items():
        metrics = folder / "metrics.jsonl"
        if has_avr(config) and metrics.is_file():
            values[seed] = read(metrics, last_ave)
            lowest = lowest_ave(config, folder / "best.pt")
            bound, skip = bound if lowest is None else lowest, skip_ave(config)
    return {**moments(values.values()), "by_seed": values, "skip": skip, "bound": bound} if values else None


def has_avr(config: dict[str, Any]) -> bool:
    """Whether a run's resolved configuration has AVR switched on."""
    avr = config.get("method", {}).get("avr")
    return isinstance(avr, dict) and bool(avr.get("enabled"))


def last_ave(text: str) -> float:
    """The mean of L_ave over the last epoch, out of metrics.jsonl."""
    return float(json.loads(text.splitlines()[-1])["loss"]["ave"])


def skip_ave(config: dict[str, Any]) -> float | None:
    """L_ave of the input skip alone with its initial weights, for noise prediction; else None.

    From features of unit variance it is the mean of alpha-bar_t over the steps: w_t x_t with w_t =
    sqrt(1 - alpha-bar_t) leaves alpha-bar_t of the noise's variance.
    """
    avr = config["method"]["avr"]
    if not avr.get("input_skip", False) or avr["objective"] != "noise":
        return None
    ends = {"ends": avr["betas"]} if "betas" in avr else {}               # method=released has no such option
    betas = make_betas(avr["schedule"], avr["steps"], **ends)
    return float((1 - betas).cumprod(dim=0).mean())


def lowest_ave(config: dict[str, Any], checkpoint: Path) -> float | None:
    """1 - width / C for noise prediction by a last layer of `width` channels alone; else None, as
    without a checkpoint.

    Its outputs at one place of the sequence lie in `width` of C dimensions, and white noise is as
    large in all of them: a network that knew the noise would still leave the rest. A skip of the
    input, `avr.input_skip`, lifts that bound; runs from before that option have none. Only the
    shape of the layer is read, the network is not built.
    """
    avr = config["method"]["avr"]
    if avr.get("input_skip", False) or avr["objective"] != "noise" or not checkpoint.is_file():
        return None
    channels, width = load_checkpoint(checkpoint, mmap=True)["model"][LAST_LAYER].shape[:2]
    return max(0.0, 1 - width / channels)


def origin(row: str, seed: int, run: PlannedRun, results: dict[str, Any]) -> dict[str, Any]:
    """Where a figure comes from. `start`: the command of the run it was initialised from."""
    path = run.folder / "environment.json"
    environment = read(path, TypeAdapter(dict[str, Any]).validate_json) if path.is_file() else {}
    start = shlex.join(command_of(run.depends_on)) if run.depends_on else None
    return {"row": row, "seed": seed, "name": run.name, "digest": run.digest, "command": shlex.join(command_of(run)),
            "start": start, "dataset": results["config"]["dataset"]["name"], "epoch": results["epoch"],
            "environment": environment, "code": str(environment.get("code") or "unknown")}


def compare_rows(
    name: str, grid: Grid, done: dict[str, BySeed], rows: dict[str, Any]
) -> tuple[list[Comparison], list[str]]:
    """Rows against their references in each shared scenario; and rows left out for one seed."""
    cache: dict[str, dict[str, Answers]] = {}

    def answers(row: str, seed: int, scenario: str) -> Answers:
        run = done[row][seed]
        if run.name not in cache:
            cache[run.name] = read(run.folder / "predictions.jsonl", parse_answers)
        return cache[run.name].get(scenario, {})

    comparisons, untested = [], []
    for row, reference in [(key, reference) for key in rows for reference in grid.references(key)]:
        seeds = [seed for seed in done[row] if seed in done.get(reference, {})]
        if len(seeds) == 1 and row not in untested:
            untested.append(row)
        for scenario in rows[row]["scenarios"] if len(seeds) > 1 else ():
            if scenario in rows[reference]["scenarios"]:
                pairs = [(answers(row, seed, scenario), answers(reference, seed, scenario)) for seed in seeds]
                try:
                    comparisons.append(compare(row, reference, scenario, pairs))
                except ValueError as error:
                    raise UsageError(f"table {name}, {scenario}: {error}; rows that are compared need the same test "
                                     "data") from error
    return correct(comparisons), untested


def calibration_errors(text: str) -> dict[str, float]:
    """predictions.jsonl: scenario -> expected calibration error in percent."""
    by_scenario: dict[str, list[tuple[float, bool]]] = {}
    for record in map(TypeAdapter(Line).validate_json, text.splitlines()):
        by_scenario.setdefault(record["scenario"], []).append((record["confidence"], record["correct"]))
    return {scenario: calibration(answers) for scenario, answers in by_scenario.items()}


def parse_answers(text: str) -> dict[str, Answers]:
    """predictions.jsonl: scenario -> question -> video and whether the answer is right."""
    by_scenario: dict[str, Answers] = {}
    parse_line = TypeAdapter(Line).validate_json
    for record in map(parse_line, text.splitlines()):
        question = (record["row"], record["question_id"])
        by_scenario.setdefault(record["scenario"], {})[question] = (record["video_id"], record["correct"])
    return by_scenario
