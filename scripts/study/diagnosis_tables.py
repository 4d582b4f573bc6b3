"""The tables of a diagnosis: one line per run or, where runs are seeds of one row, mean ± standard deviation."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator
from typing import Any

from tabulate import tabulate

from scripts.tables.collect import mean, spread
from scripts.tables.text import number

NOTE = """R2: the share of the real feature's variance that the stand-in explains; 1 for the feature itself, 0 for the best
constant (of all questions, or of those of one type), below 0 for worse. "Real" is what each run itself answers on when
nothing is missing; its encoder is trained, so compare R2 between rows with care. ECE: expected calibration error.

"""
Found = dict[str, list[dict[str, Any]]]          # label -> what was measured on each of its runs


def as_markdown(found: Found) -> str:
    """All tables that have a line."""
    parts = [
        ("Answers and their calibration (percent)", ["run", "input", "accuracy", "ECE"], answers(found)),
        ("Stand-ins against the real features",
         ["run", "input", "stage", "modality", "R2", "spread / real spread"], stand_ins(found)),
        ("Slot addressing", ["run", "input", "entropy / log K", "slots in effect", "largest weight x K"], addressing(found)),
        ("Accuracy by number of diffusion steps at test", *by_steps(found)),
        ("R2 by question type", ["run", "input", "stage", "modality", "type", "R2"], by_type(found)),
    ]
    return NOTE + "\n".join(f"### {title}\n\n{tabulate(rows, headers=head, tablefmt='github', disable_numparse=True)}\n"
                     for title, head, rows in parts if rows)


def over(runs: Iterable[dict[str, Any]], read: Callable[[dict[str, Any]], float | None], digits: int = 1) -> str:
    """What `read` finds in the runs, as mean ± standard deviation; "-" where one run has nothing to read."""
    values = [read(run) for run in runs]
    if any(value is None for value in values):
        return "-"
    if not all(math.isfinite(value) for value in values):
        return "not finite"
    deviation = spread(values)
    digits = 0 if abs(mean(values)) >= 100 else digits
    return number(mean(values), digits) + (f" ± {number(deviation, digits)}" if deviation is not None else "")


def answers(found: Found) -> list[list[str]]:
    return [[label, name, *(over(runs, lambda run, n=name, k=key: run["answers"][n][k]) for key in ("accuracy", "ece"))]
            for label, runs in found.items() for name in runs[0]["answers"]]


def stages(found: Found) -> Iterator[tuple[list[str], list[dict[str, Any]], list[str]]]:
    """(cells naming the place, measurements of every run by question type, types) where a stand-in is not the feature."""
    for label, runs in found.items():
        for scenario, content in runs[0]["features"].items():
            for stage, modalities in content["stages"].items():
                for modality, cells in modalities.items():
                    if cells["all"]["r2"] != 1:
                        of_runs = [run["features"][scenario]["stages"][stage][modality] for run in runs]
                        yield [label, scenario, stage, modality], of_runs, list(cells)


def stand_ins(found: Found) -> list[list[str]]:
    return [[*place, *(over(runs, lambda run, k=key: run["all"][k], 3) for key in ("r2", "spread"))]
            for place, runs, _ in stages(found)]


def by_type(found: Found) -> list[list[str]]:
    return [[*place, type_, over(runs, lambda run, t=type_: run[t]["r2"], 3)]
            for place, runs, types in stages(found) for type_ in types if type_ != "all"]


def addressing(found: Found) -> list[list[str]]:
    keys = {"entropy": 5, "effective_slots": 1, "largest_weight_times_slots": 2}
    return [[label, name, *(over(runs, lambda run, n=name, k=key: run["features"][n]["addressing"][k], digits)
                            for key, digits in keys.items())]
            for label, runs in found.items() for name, content in runs[0]["features"].items() if content["addressing"]]


def by_steps(found: Found) -> tuple[list[Any], list[list[str]]]:
    """Head and lines; a run with fewer steps than another has empty cells at the end."""
    lines = [[label, name, *(over(runs, lambda run, n=name, s=steps: run["by_steps"][n][s]) for steps in cells)]
             for label, runs in found.items() for name, cells in runs[0]["by_steps"].items()]
    longest = max((len(line) - 2 for line in lines), default=0)
    return ["run", "input", *range(1, longest + 1)], lines
