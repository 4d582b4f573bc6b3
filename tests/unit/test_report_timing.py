"""The time of a plan, against hand-worked sums, a loop that counts, and the laws of schedules."""

import math
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from commands import write_dataset
from hypothesis import given, settings
from hypothesis import strategies as st
from toy import SPEC

from engine.config import compose
from engine.errors import UsageError
from scripts.tables import timing
from scripts.tables.plan import PlannedRun
from scripts.tables.timing import Data, Pace, hours_table, pace_key, run_seconds, wall_seconds

ALL = ["complete", "audio_missing", "visual_missing"]


def config(epochs=3, max_steps=None, batch_size=10, every=2, workers=0, select_by=ALL, scenarios=ALL) -> dict:
    return {"train": {"epochs": epochs, "max_steps": max_steps, "batch_size": batch_size, "select_by": select_by},
            "evaluate": {"every": every, "scenarios": scenarios}, "runtime": {"workers": workers}}


def data(train=95, val=20, test=30, **costs) -> Data:
    return Data(SPEC, {"train": train, "val": val, "test": test}, **costs)


def test_a_run_by_hand():
    """95 questions in tens: 10 steps an epoch, 30 in all; validated after epochs 2 and 3."""
    answers = 0.5 + 2 * 2                                 # seconds per question in the three scenarios
    seconds = run_seconds(config(), data(), Pace(1, 0.5, 2), 7)
    assert seconds == pytest.approx(7 + 30 * 1 + 2 * 20 * answers + 30 * answers)
    short = config(max_steps=12, select_by=["complete"], scenarios=["complete"])
    assert run_seconds(short, data(), Pace(1, 0.5, 2), 0) == pytest.approx(12 * 1 + 1 * 20 * 0.5 + 30 * 0.5)
    plain = config(epochs=1, select_by=["complete"], scenarios=["audio_missing"])      # validation looks at both
    assert run_seconds(plain, data(), Pace(1, 0.5, 2), 0) == pytest.approx(10 + 20 * 2.5 + 30 * 2)


def test_reading_goes_on_beside_only_with_workers():
    """30 steps of ten questions at 0.3 s; 20 + 30 questions answered; 45 videos read once."""
    one = {"select_by": ["complete"], "scenarios": ["complete"], "every": 3}
    slow = data(videos=45, per_video=0.2, per_question=0.3)
    assert run_seconds(config(**one), slow, Pace(1, 0.1, 0), 0) == pytest.approx(9 + 30 * (1 + 3) + 50 * 0.4)
    assert run_seconds(config(**one, workers=2), slow, Pace(1, 0.1, 0), 0) == pytest.approx(9 + 30 * 3 + 50 * 0.3)


@given(epochs=st.integers(1, 9), max_steps=st.none() | st.integers(1, 60), train=st.integers(1, 99),
       batch_size=st.integers(1, 40), every=st.integers(1, 5))
def test_steps_and_validations_are_those_of_the_loop(epochs, max_steps, train, batch_size, every):
    """Counted as engine/loop.py goes: epoch by epoch until one of the limits is met."""
    steps = epoch = validations = 0
    while not (epoch >= epochs or (max_steps and steps >= max_steps)):
        for _ in range(0, train, batch_size):
            steps += not (max_steps and steps >= max_steps)
        epoch += 1
        last = epoch >= epochs or bool(max_steps and steps >= max_steps)
        validations += last or epoch % every == 0
    run = config(epochs, max_steps, batch_size, every, select_by=["complete"], scenarios=["complete"])
    counted = run_seconds(run, data(train, val=1, test=0), Pace(1, 1e-3, 0), 0)
    assert counted == pytest.approx(steps + 1e-3 * validations)


def test_what_costs_no_time_is_measured_once():
    same = [compose("configs/embedded.yaml", options) for options in (
        [], ["train.seed=2", "train.epochs=3"], ["method.lambda1=0.5", "dataset.train_missing_ratio=0.5"])]
    assert len({pace_key(c, SPEC) for c in same}) == 1
    other = [compose("configs/embedded.yaml", options) for options in (
        ["avr.steps=5"], ["avr.gradient_steps=1"], ["train.batch_size=9"], ["backbone=avsd"], ["runtime.bf16=true"])]
    assert len({pace_key(c, SPEC) for c in [*same, *other]}) == 1 + len(other)


def runs_of(starts: list[int | None], folder: Path = Path("nowhere")) -> list[PlannedRun]:
    """Run i waits for run starts[i]."""
    runs = []
    for i, start in enumerate(starts):
        depends_on = None if start is None else runs[start]
        runs.append(PlannedRun(f"r{i}", "", folder / f"r{i}", [], depends_on, [], [f"t/r{i}"]))
    return runs


@settings(deadline=None)
@given(st.data())
def test_a_sweep_takes_as_long_as_a_list_schedule_may(data):
    """At least the longest chain and the shared work; at most Graham's bound, their sum (1966)."""
    count, jobs = data.draw(st.integers(1, 12)), data.draw(st.integers(1, 5))
    starts = [data.draw(st.none() | st.integers(0, i - 1)) if i else None for i in range(count)]
    took = [data.draw(st.integers(1, 50)) for _ in range(count)]
    runs, chain = runs_of(starts), []
    for start, t in zip(starts, took, strict=True):
        chain.append(t + (0 if start is None else chain[start]))
    seconds = wall_seconds(runs, {f"r{i}": t for i, t in enumerate(took)}, jobs)
    assert max(max(chain), sum(took) / jobs) <= seconds <= max(chain) + sum(took) / jobs
    if jobs == 1:
        assert seconds == sum(took)
    if jobs >= count:
        assert seconds == max(chain)


def test_done_runs_take_no_time_and_unknown_ones_leave_it_open(tmp_path):
    """r0 is done; r1 and r2 start at once, r3 after r1."""
    runs = runs_of([None, 0, 0, 1], tmp_path)
    (tmp_path / "r0").mkdir()
    (tmp_path / "r0/results.json").write_text("{}")
    seconds = {"r0": 0.0, "r1": 3600.0, "r2": 1800.0, "r3": 1800.0}
    assert wall_seconds(runs, seconds, 2) == 5400
    assert wall_seconds(runs, {**seconds, "r2": None}, 2) is None
    text = hours_table({"one": runs[:3], "two": runs[:1]}, runs, seconds, 2)
    cells = [[c.strip() for c in line.split("|")[1:-1]] for line in text.splitlines()[2:]]
    assert cells == [["one", "2", "1.00"], ["two", "0", "0.00"], ["all together", "3", "1.50"]]
    assert "unknown" in hours_table({"one": runs}, runs, {**seconds, "r1": None}, 1)


@pytest.mark.parametrize("method, more", [
    ("plain", ["backbone.negatives=other_video"]), ("rmm_avr", ["rmm.slots=5", "avr.steps=3", "avr.width=8"])])
def test_real_steps_of_the_configured_shapes_are_timed(method, more):
    run = SimpleNamespace(config=compose(None, [f"method={method}", "runtime.device=cpu", "train.batch_size=3",
                                                "evaluate.batch_size=4", *more]), users=["t/r s1"])
    pace = timing.measure(run, SPEC)
    assert all(math.isfinite(x) and x > 0 for x in (pace.step, pace.complete, pace.missing))


def test_a_row_that_cannot_be_built_is_named():
    run = SimpleNamespace(config=compose(None, ["avr.steps=3", "avr.start_step=5", "runtime.device=cpu"]),
                          users=["mine/late s1"])
    with pytest.raises(UsageError, match="mine/late s1: avr.start_step=5 must be below"):
        timing.measure(run, SPEC)


def test_sizes_are_those_of_the_files_or_the_published_ones(tmp_path):
    """Eight videos of three questions per split; without files MUSIC-AVQA is known alone."""
    root = write_dataset(tmp_path / "data")
    own = timing.read_data({"name": "music_avqa", "root": str(root), "stride": 2})
    assert own.questions == {"train": 24, "val": 24, "test": 24} and own.videos == 24
    assert (own.spec.segments, own.spec.audio_channels, own.spec.grid) == (3, 5, (2, 2)) and own.per_question > 0
    real = timing.read_data(compose(None, ["dataset=music_avqa", "dataset.root=none"])["dataset"])
    assert (real.per_question, real.videos) == (0, 0)
    assert sum(real.questions.values()) == 31_927 + 4_568 + 9_129 and real.spec.visual_channels == 512
    assert timing.read_data({"name": "avqa", "root": "none"}) is None


def test_steps_of_a_few_repeats_and_the_shortest_counts(monkeypatch):
    """The first one is not counted, and a long one is not repeated."""
    for times, wanted, calls in (([9, 0.01, 0.03, 0.02, 0.05], 0.01, 5), ([9, 5, 1], 5, 2)):
        left = iter(times)
        monkeypatch.setattr(timing, "timed", lambda step, device, left=left: next(left))
        assert timing.repeated(None, torch.device("cpu")) == wanted
        assert len(times) - len(list(left)) == calls
