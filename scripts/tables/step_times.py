"""Measure what the estimate of a plan is made from (scripts/reproduce.py --plan); nothing is kept and no run is touched."""

from __future__ import annotations

import json
import multiprocessing
import os
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from itertools import islice
from types import SimpleNamespace
from typing import Any

import torch
from tqdm import tqdm

from dataset import build_dataset, make_loader
from dataset.types import AUDIO, DataError, DataSpec
from engine import runtime
from engine.errors import UsageError
from models.errors import OptionError
from scripts.benchmark import published_shapes, random_batch, steps_of, timed
from scripts.tables.plan import Run
from scripts.tables.timing import Data, Pace, pace_key, run_seconds

SAMPLE = 512                     # questions that are read to time the loader
SECONDS, REPEATS = 0.3, 4        # of counted steps: as long or as many, whichever is first
PUBLISHED = {"train": 31_927, "val": 4_568, "test": 9_129}      # questions of MUSIC-AVQA, json_update


def estimate(runs: list[Run], jobs: int, start_up: float) -> dict[str, float | None]:
    """Seconds of every run by name: 0 when it is done, None where its data are not at hand and their sizes not known.

    `start_up`: seconds before a run begins to read, which its imports take.
    """
    waiting = [run for run in runs if not run.done]
    data = read_all([run.config["dataset"] for run in waiting])
    known = {run.name: data[key_of(run.config["dataset"])] for run in waiting}
    wanted = {pace_key(run.config, known[run.name].spec): (run, known[run.name].spec) for run in waiting if known[run.name]}
    paces = dict(zip(wanted, measure_all(list(wanted.values()), jobs), strict=True))
    found: dict[str, float | None] = {run.name: 0.0 if run.done else None for run in runs}
    for run in waiting:
        if known[run.name] and (pace := paces[pace_key(run.config, known[run.name].spec)]):
            found[run.name] = run_seconds(run.config, known[run.name], pace, start_up)
    return found


def key_of(options: dict[str, Any]) -> str:
    return json.dumps(options, sort_keys=True)


def read_all(datasets: list[dict[str, Any]]) -> dict[str, Data | None]:
    return {key_of(options): read_data(options) for options in {key_of(o): o for o in datasets}.values()}


def read_data(options: dict[str, Any]) -> Data | None:
    """From the files at hand; else the published sizes of MUSIC-AVQA, without what reading costs; else None."""
    try:
        data = build_dataset(options)
        vocabulary = data.vocabulary()
        spec, questions = data.spec(vocabulary), {s: data.questions(s) for s in ("train", "val", "test")}
        sample = data.question_set("train", vocabulary)
    except DataError:
        return Data(published_shapes(options), PUBLISHED) if options["name"] == "music_avqa" else None
    videos: set[int] = set()

    def read() -> None:
        for batch in islice(make_loader(sample, batch_size=SAMPLE, shuffle=True), 1):
            videos.update(batch.video.tolist())

    first, *more = (timed(read, torch.device("cpu")) for _ in range(1 + REPEATS))
    again, count = min(more), min(SAMPLE, len(questions["train"]))
    return Data(spec, {split: len(found) for split, found in questions.items()},
                len({q.video_id for found in questions.values() for q in found}),
                again / count, max(0.0, first - again) / len(videos))


def measure_all(wanted: list[tuple[Run, DataSpec]], jobs: int) -> list[Pace | None]:
    """The pace of each, `jobs` at a time on as many threads as a run would have, so that they are in each other's way."""
    bar = {"total": len(wanted), "desc": "measuring steps", "unit": "kind", "leave": False}
    if jobs == 1:
        return list(tqdm((measure(*item) for item in wanted), **bar))
    cores = max(1, (os.cpu_count() or 1) // jobs)
    threads = torch.get_num_threads() if "OMP_NUM_THREADS" in os.environ else cores        # as Sweep gives them to runs
    with ProcessPoolExecutor(jobs, multiprocessing.get_context("spawn"), torch.set_num_threads, (threads,)) as pool:
        return list(tqdm(pool.map(measure, *zip(*wanted, strict=True)), **bar)) if wanted else []


def measure(run: Run, spec: DataSpec) -> Pace | None:
    """Real steps on random features; None where they do not fit into the memory of the GPU."""
    config, size = run.config, run.config["evaluate"]["batch_size"]
    accelerator = runtime.make_accelerator(config["runtime"])
    try:
        model, train = steps_of(SimpleNamespace(what="train-step", batch_size=config["train"]["batch_size"]), config, spec,
                                accelerator)
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
    """Seconds of one step, the shortest of a few after one that is not counted: what else the machine does is not ours."""
    timed(step, device)
    seconds: list[float] = []
    while sum(seconds) < SECONDS and len(seconds) < REPEATS:
        seconds.append(timed(step, device))
    return min(seconds)
