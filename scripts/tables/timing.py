"""How long a plan takes: seconds per step and answer, measured here, times what runs do.

Nothing is kept and no run is touched.
"""

from __future__ import annotations

import heapq
import json
import math
import multiprocessing
import os
from collections.abc import Callable, Iterable
from concurrent.futures import ProcessPoolExecutor
from dataclasses import asdict, dataclass
from itertools import islice
from typing import Any

import torch
from tqdm import tqdm

from dataset import build_dataset, make_loader
from dataset.types import AUDIO, DataError, DataSpec
from engine import runtime
from engine.errors import UsageError
from models.errors import OptionError
from scripts.benchmark import published_shapes, random_batch, steps_of, timed
from scripts.tables.plan import PlannedRun
from scripts.tables.text import grid_text

SAMPLE = 512                     # questions that are read to time the loader
SECONDS, REPEATS = 0.3, 4        # of counted steps: as long or as many, whichever is first
PUBLISHED = {"train": 31_927, "val": 4_568, "test": 9_129}      # questions of MUSIC-AVQA, json_update
Seconds = dict[str, float | None]        # by the name of a run; None where it is not known


@dataclass(frozen=True)
class Data:
    """Shapes and sizes of a data set; seconds to read a question, and a video at first."""

    spec: DataSpec
    questions: dict[str, int]        # by split
    videos: int = 0                  # of all splits; 0 where reading is not measured
    per_question: float = 0.0
    per_video: float = 0.0


@dataclass(frozen=True)
class Pace:
    """Seconds per training step, per complete answer and per answer with a modality missing."""

    step: float
    complete: float
    missing: float


def pace_key(config: dict[str, Any], spec: DataSpec) -> str:
    """What decides the pace of a run: two runs with the same key are measured once.

    A fraction weighs or scales something, so it costs time only by being zero or not.
    """
    return json.dumps([in_kind(config["backbone"]), in_kind(config["method"]), asdict(spec),
                       config["train"]["batch_size"], config["evaluate"]["batch_size"], config["runtime"]],
                      sort_keys=True)


def in_kind(value: Any) -> Any:
    """Options with every fraction replaced by whether it is zero."""
    if isinstance(value, dict):
        return {key: in_kind(item) for key, item in value.items()}
    return value != 0 if isinstance(value, float) else value


def run_seconds(config: dict[str, Any], data: Data, pace: Pace, start_up: float) -> float:
    """Training, validation and test of one run, with what it takes to begin. Loader threads work
    beside the network.
    """
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


def wall_seconds(runs: list[PlannedRun], seconds: Seconds, jobs: int) -> float | None:
    """How long a sweep over `runs` takes with `jobs` at a time, as it starts them: in order, each
    after its start.

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


def hours_table(tables: dict[str, list[PlannedRun]], everything: list[PlannedRun], seconds: Seconds, jobs: int) -> str:
    """Per table the waiting runs and their hours, and those of all tables, which share runs."""
    lines = []
    for name, runs in [*tables.items(), *([("all together", everything)] if len(tables) > 1 else [])]:
        wall = wall_seconds(runs, seconds, jobs)
        hours = "unknown" if wall is None else f"{wall / 3600:.2f}"
        lines.append([name, str(sum(not run.done for run in runs)), hours])
    return grid_text(lines, ["", "runs to train", f"hours, {jobs} at a time"])


def estimate(runs: list[PlannedRun], jobs: int, start_up: float) -> Seconds:
    """Seconds of every run: 0 when done, None where neither data nor their sizes are known.

    `start_up`: seconds before a run begins to read, which its imports take.
    """
    waiting = [run for run in runs if not run.done]
    options = {as_key(run.config["dataset"]): run.config["dataset"] for run in waiting}
    data = {key: read_data(of_data) for key, of_data in options.items()}
    known = [(run, of_data) for run in waiting if (of_data := data[as_key(run.config["dataset"])])]
    wanted = {pace_key(run.config, of_data.spec): (run, of_data.spec) for run, of_data in known}
    paces = dict(zip(wanted, measure_all(list(wanted.values()), jobs), strict=True))
    seconds: Seconds = {run.name: 0.0 if run.done else None for run in runs}
    for run, of_data in known:
        if pace := paces[pace_key(run.config, of_data.spec)]:
            seconds[run.name] = run_seconds(run.config, of_data, pace, start_up)
    return seconds


def as_key(options: dict[str, Any]) -> str:
    return json.dumps(options, sort_keys=True)


def read_data(options: dict[str, Any]) -> Data | None:
    """From the files; else MUSIC-AVQA's published sizes, without the cost of reading; else None."""
    try:
        data = build_dataset(options)
        vocabulary = data.vocabulary()
        spec, questions = data.spec(vocabulary), {s: data.asked(s) for s in ("train", "val", "test")}
        sample = data.question_set("train", vocabulary)
    except DataError:
        if options["name"] != "music_avqa":
            return None
        train = round(PUBLISHED["train"] * options["train_questions"])
        return Data(published_shapes(options), {**PUBLISHED, "train": train})
    videos: set[int] = set()

    def read() -> None:
        for batch in islice(make_loader(sample, batch_size=SAMPLE, shuffle=True), 1):
            videos.update(batch.video.tolist())

    first, *more = (timed(read, torch.device("cpu")) for _ in range(1 + REPEATS))
    again, count = min(more), min(SAMPLE, len(questions["train"]))
    return Data(spec, {split: len(of_split) for split, of_split in questions.items()},
                len({q.video_id for of_split in questions.values() for q in of_split}),
                again / count, max(0.0, first - again) / len(videos))


def measure_all(wanted: list[tuple[PlannedRun, DataSpec]], jobs: int) -> list[Pace | None]:
    """The pace of each, `jobs` side by side, each on as many threads as a run would have."""
    bar = {"total": len(wanted), "desc": "measuring steps", "unit": "kind", "leave": False}
    if jobs == 1:
        return list(tqdm((measure(*item) for item in wanted), **bar))
    cores = max(1, (os.cpu_count() or 1) // jobs)
    threads = torch.get_num_threads() if "OMP_NUM_THREADS" in os.environ else cores        # as Sweep gives them to runs
    with ProcessPoolExecutor(jobs, multiprocessing.get_context("spawn"), torch.set_num_threads, (threads,)) as pool:
        return list(tqdm(pool.map(measure, *zip(*wanted, strict=True)), **bar)) if wanted else []


def measure(run: PlannedRun, spec: DataSpec) -> Pace | None:
    """Real steps on random features; None where they do not fit into the memory of the GPU."""
    config, size = run.config, run.config["evaluate"]["batch_size"]
    accelerator = runtime.make_accelerator(config["runtime"])
    try:
        model, train = steps_of("train-step", config, spec, accelerator, config["train"]["batch_size"])
        step = repeated(train, accelerator.device)
        batch = random_batch(spec, size, accelerator.device)
        model.eval()

        def answer() -> None:
            with torch.no_grad(), accelerator.autocast():
                model(batch)

        complete = repeated(answer, accelerator.device)
        batch.presence[..., AUDIO] = False
        return Pace(step, complete / size, repeated(answer, accelerator.device) / size)
    except torch.OutOfMemoryError:
        return None
    except OptionError as error:
        raise UsageError(f"{run.users[0]}: {error}") from error


def repeated(step: Callable[[], None], device: torch.device) -> float:
    """Seconds of one step: the shortest of a few after a warm-up, as other load is not ours."""
    timed(step, device)
    seconds: list[float] = []
    while sum(seconds) < SECONDS and len(seconds) < REPEATS:
        seconds.append(timed(step, device))
    return min(seconds)
