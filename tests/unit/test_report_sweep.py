"""A sweep trains what is not done, once, and goes on after a failure."""

import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest
from unit.toy_plan import GRID, plan_of

from scripts.tables import sweep
from scripts.tables.sweep import Sweep

# A stand-in for main_train.py: notes its start, fails where it must, else leaves a result.
TRAIN = """
import os, pathlib, sys, time
options = dict(a.split("=", 1) for a in sys.argv[1:] if "=" in a)
folder = pathlib.Path(options["run.root"]) / options["run.name"]
with open(pathlib.Path(options["run.root"]) / "started", "a") as f: f.write(options["run.name"] + "\\n")
assert "train.init" not in options or pathlib.Path(options["train.init"]).with_name("results.json").is_file()
fds = "/proc/self/fd"
links = [os.path.realpath(f"{fds}/{f}") for f in os.listdir(fds)] if os.path.isdir(fds) else []
assert not links or any(link.endswith("/.locks/" + options["run.name"]) for link in links)
time.sleep(0.2)
is_start = "method" not in options and "rmm.slots" not in options
if options.get("rmm.slots") == "5" or (options["train.seed"] == "2" and is_start):
    print("no such thing"); sys.exit(3)
(folder / "results.json").write_text("{}")
"""


@pytest.fixture
def stub(tmp_path, monkeypatch):
    """Runs are trained by the stand-in, into tmp_path/runs; returns the overrides for that."""
    (tmp_path / "main_train.py").write_text(TRAIN)
    (tmp_path / "runs").mkdir()
    monkeypatch.setattr(sweep, "ROOT", tmp_path)
    return [f"run.root={tmp_path / 'runs'}"]


def started(overrides) -> list[str]:
    return (Path(overrides[0].partition("=")[2]) / "started").read_text().split()


def test_a_failed_run_is_reported_and_the_others_go_on(stub):
    """Seed 1: one row fails. Seed 2: the start fails, so its rows are not started."""
    plan = plan_of(GRID, seeds=2, overrides=stub)
    failures = Sweep(plan.shard(1, 1), jobs=2).execute()
    failed = {failure.run.users[0]: failure for failure in failures}
    assert set(failed) == {"table0/few s1", "table0/start s2", "table0/few s2", "table0/dropout s2"}
    assert (failed["table0/few s1"].code, failed["table0/few s1"].lines[-1]) == (3, "no such thing")
    assert failed["table0/few s2"].code is None and "its start" in str(failed["table0/few s2"])
    assert plan.tables["table0"]["dropout"][1].done
    assert len(started(stub)) == 4                                         # two starts, two rows of seed 1


def test_a_rerun_trains_nothing_and_tries_the_failed_again(stub):
    rows = {"dropout": GRID["rows"]["dropout"], "few": GRID["rows"]["few"]}
    plan = plan_of({**GRID, "rows": rows}, seeds=1, overrides=stub)
    assert len(Sweep(plan.shard(1, 1), jobs=1).execute()) == 1
    before = started(stub)
    assert len(Sweep(plan.shard(1, 1), jobs=1).execute()) == 1
    assert started(stub)[len(before):] == [plan.tables["table0"]["few"][1].name]


def test_two_sweeps_at_once_train_each_run_once(stub):
    rows = {f"k{k}": {"label": "x", "overrides": [f"rmm.slots={k}"]} for k in (6, 7)}
    plan = plan_of({**GRID, "rows": rows}, seeds=1, overrides=stub)
    threads = [threading.Thread(target=Sweep(plan.shard(i, 2), jobs=1).execute) for i in (1, 2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(started(stub)) == sorted(plan.runs) and all(run.done for run in plan.runs.values())


def test_the_lock_outlives_a_killed_sweep(stub):
    """A process that inherited the lock, as every run does, holds it when the sweep is gone."""
    run = next(iter(plan_of(GRID, seeds=1, overrides=stub).runs.values()))
    with sweep.locked(run) as lock:
        child = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(0.6)"], pass_fds=(lock.fileno(),))
    before = time.monotonic()
    with sweep.locked(run):
        assert child.poll() is not None or time.monotonic() - before > 0.2
    child.wait()
