"""The tables of a diagnosis: a line per run, or mean ± standard deviation over a row's seeds."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

from tabulate import tabulate

from scripts.tables.text import moments, with_spread

NOTE = """R2: the share of the real feature's variance that the stand-in explains; 1 for the feature
itself, 0 for the best constant (of all questions, or of those of one type), below 0 for worse.
"Real" is what each run itself answers on when nothing is missing; its encoder is trained, so
compare R2 between rows with care. ECE: expected calibration error.

"""
Measured = dict[str, list[dict[str, Any]]]          # label -> what was measured on each of its runs
ADDRESSING = {"entropy": 5, "effective_slots": 1, "largest_weight_times_slots": 2}       # digits


def as_markdown(measured: Measured) -> str:
    """All tables that have a line."""
    overall, of_types = stand_ins(measured)
    place = ["run", "input", "stage", "modality"]
    answers = [[label, name, *(over(runs, lambda run, n=name, k=key: run["answers"][n][k])
                               for key in ("accuracy", "ece"))] for label, runs in measured.items()
               for name in runs[0]["answers"]]
    addressing = [[label, name, *(over(runs, lambda run, n=name, k=key: run["features"][n]["addressing"][k], digits)
                                  for key, digits in ADDRESSING.items())] for label, runs in measured.items()
                  for name, content in runs[0]["features"].items() if content["addressing"]]
    by_steps = [[label, name, *(over(runs, lambda run, n=name, s=steps: run["by_steps"][n][s]) for steps in cells)]
                for label, runs in measured.items() for name, cells in runs[0]["by_steps"].items()]
    most = max((len(line) - 2 for line in by_steps), default=0)
    tables = [
        ("Answers and their calibration (percent)", ["run", "input", "accuracy", "ECE"], answers),
        ("Stand-ins against the real features", [*place, "R2", "spread / real spread"], overall),
        ("Slot addressing", ["run", "input", "entropy / log K", "slots in effect", "largest weight x K"], addressing),
        ("Accuracy by number of diffusion steps at test", ["run", "input", *range(1, most + 1)], by_steps),
        ("R2 by question type", [*place, "type", "R2"], of_types)]
    style = {"tablefmt": "github", "disable_numparse": True}
    return NOTE + "\n".join(f"### {title}\n\n{tabulate(lines, headers=head, **style)}\n"
                            for title, head, lines in tables if lines)


def over(runs: list[dict[str, Any]], read: Callable[[dict[str, Any]], float | None], digits: int = 1) -> str:
    """What `read` gives of the runs, as mean ± standard deviation; "-" where it gives nothing."""
    values = [read(run) for run in runs]
    if any(value is None for value in values):
        return "-"
    if not all(math.isfinite(value) for value in values):
        return "not finite"
    cell = moments(values)
    return with_spread(cell, 0 if abs(cell["mean"]) >= 100 else digits)


def stand_ins(measured: Measured) -> tuple[list[list[str]], list[list[str]]]:
    """The lines over all questions and by type, where a stand-in is not the feature itself."""
    overall, of_types = [], []
    for label, runs in measured.items():
        for scenario, content in runs[0]["features"].items():
            for stage, modalities in content["stages"].items():
                for modality, types in modalities.items():
                    if types["all"]["r2"] == 1:
                        continue
                    place = [label, scenario, stage, modality]
                    of_runs = [run["features"][scenario]["stages"][stage][modality] for run in runs]
                    overall.append([*place, *(over(of_runs, lambda run, k=key: run["all"][k], 3)
                                              for key in ("r2", "spread"))])
                    of_types += [[*place, type_, over(of_runs, lambda run, t=type_: run[t]["r2"], 3)]
                                 for type_ in types if type_ != "all"]
    return overall, of_types
