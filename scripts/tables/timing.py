"""How long a plan takes: seconds per step and per answer, measured beforehand, times what every run does."""

from __future__ import annotations

import heapq
import json
import math
from collections.abc import Iterable
from dataclasses import asdict, dataclass
from typing import Any

from dataset.types import DataSpec
from scripts.tables.plan import Run
from scripts.tables.text import grid_text


@dataclass(frozen=True)
class Data:
    """Shapes and sizes of a data set, and the seconds that a question of a batch and the first reading of a video take."""

    spec: DataSpec
    questions: dict[str, int]        # by split
    videos: int = 0                  # of all splits; 0 where reading is not measured
    per_question: float = 0.0
    per_video: float = 0.0


@dataclass(frozen=True)
class Pace:
    """Seconds per training step, and per question answered with everything there and with a modality missing."""

    step: float
    complete: float
    missing: float


def pace_key(config: dict[str, Any], spec: DataSpec) -> str:
    """What decides the pace of a run: two runs with the same key are measured once.

    An option that is a fraction weighs or scales something, so it costs time only by being zero or not.
    """
    return json.dumps([in_kind(config["backbone"]), in_kind(config["method"]), asdict(spec), config["train"]["batch_size"],
                       config["evaluate"]["batch_size"], config["runtime"]], sort_keys=True)


def in_kind(value: Any) -> Any:
    """Options with every fraction replaced by whether it is zero."""
    if isinstance(value, dict):
        return {key: in_kind(item) for key, item in value.items()}
    return value != 0 if isinstance(value, float) else value


def run_seconds(config: dict[str, Any], data: Data, pace: Pace, start_up: float) -> float:
    """Training, validation and test of one run, with what it takes to begin. Loader threads work beside the network."""
    train, evaluate, beside = config["train"], config["evaluate"], config["runtime"]["workers"] > 0

    def with_loading(computing: float, questions: int) -> float:
        loading = questions * data.per_question
        return max(computing, loading) if beside else computing + loading

    def answering(names: Iterable[str], split: str) -> float:
        n = data.questions[split]
        return sum(with_loading(n * (pace.complete if name == "complete" else pace.missing), n) for name in names)

    steps_of_epoch = math.ceil(data.questions["train"] / train["batch_size"])
    steps = train["epochs"] * steps_of_epoch
    steps = min(steps, train["max_steps"] or steps)
    validations = math.ceil(math.ceil(steps / steps_of_epoch) / evaluate["every"])         # the last epoch always
    return (start_up + data.videos * data.per_video + steps * with_loading(pace.step, train["batch_size"])
            + validations * answering({*train["select_by"], *evaluate["scenarios"]}, "val")
            + answering(evaluate["scenarios"], "test"))


def wall_seconds(runs: list[Run], seconds: dict[str, float | None], jobs: int) -> float | None:
    """How long a sweep over `runs` takes with `jobs` at a time, as it starts them: in order, each after its start.

    None where the time of a run is not known.
    """
    waiting = [run for run in runs if not run.done]
    if any(seconds[run.name] is None for run in waiting):
        return None
    now, running, finished = 0.0, [], set()
    while waiting or running:
        for run in list(waiting):
            start = run.depends_on
            if len(running) < jobs and (start is None or start.done or start.name in finished):
                heapq.heappush(running, (now + seconds[run.name], run.name))
                waiting.remove(run)
        now, name = heapq.heappop(running)
        finished.add(name)
    return now


def hours_table(tables: dict[str, list[Run]], everything: list[Run], seconds: dict[str, float | None], jobs: int) -> str:
    """Per table the runs that wait and their hours, and those of all tables together, which share runs."""
    lines = [[name, *hours_line(runs, seconds, jobs)] for name, runs in tables.items()]
    if len(tables) > 1:
        lines.append(["all together", *hours_line(everything, seconds, jobs)])
    return grid_text(lines, ["", "runs to train", f"hours, {jobs} at a time"])


def hours_line(runs: list[Run], seconds: dict[str, float | None], jobs: int) -> list[str]:
    found = wall_seconds(runs, seconds, jobs)
    return [str(sum(not run.done for run in runs)), "unknown" if found is None else f"{found / 3600:.2f}"]
