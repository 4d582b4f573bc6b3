"""Run what is not done, each run as a process; a failed run is reported and stops no other."""

from __future__ import annotations

import fcntl
import os
import shlex
import subprocess
import sys
from collections.abc import Iterator
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TextIO

from tqdm import tqdm

from scripts.tables.plan import PlannedRun

ROOT = Path(__file__).resolve().parents[2]
LOG_LINES = 8                    # of a failed run that are shown


@dataclass(frozen=True)
class Failure:
    """A run that failed: its exit code (None: not started) and the last lines it wrote."""

    run: PlannedRun
    code: int | None
    lines: list[str]

    def __str__(self) -> str:
        what = "not started" if self.code is None else f"exit code {self.code}, log in {self.run.folder / 'log.txt'}"
        return "\n".join([f"{self.run.name} ({', '.join(self.run.users)}): {what}", *(f"    {x}" for x in self.lines)])


def command_of(run: PlannedRun) -> list[str]:
    """The command of a run as it is typed in the repository root."""
    return ["python", "main_train.py", *run.arguments]


def plan_line(run: PlannedRun, seconds: float | None) -> dict:
    """One run for a scheduler; `seconds` that it will take, None where they are not known."""
    return {"name": run.name, "command": shlex.join(command_of(run)), "done": run.done,
            "seconds": None if seconds is None else round(seconds, 1),
            "depends_on": [run.depends_on.name] if run.depends_on else [], "users": run.users}


@contextmanager
def locked(run: PlannedRun) -> Iterator[TextIO]:
    """Hold the run alone, over threads, processes and machines that share the file system; yields
    the open lock file.

    The operating system lets go of the lock when the last process that has the file open ends, so a
    killed sweep leaves nothing to clean up.
    """
    path = run.folder.parent / ".locks" / run.name
    path.parent.mkdir(parents=True, exist_ok=True)
    with open(path, "w") as handle:
        fcntl.flock(handle, fcntl.LOCK_EX)
        yield handle


class Sweep:
    """Runs of a plan, `jobs` at a time, starts before what needs them."""

    def __init__(self, runs: list[PlannedRun], jobs: int) -> None:
        self.jobs = jobs
        self.waiting = [run for run in runs if not run.done]
        self.failures: list[Failure] = []
        self.processes: dict[str, subprocess.Popen] = {}

    def execute(self) -> list[Failure]:
        """Train until nothing is left to do; returns what failed."""
        running: dict[Future, PlannedRun] = {}
        bar = tqdm(total=len(self.waiting), desc="runs", unit="run", disable=not self.waiting)
        with ThreadPoolExecutor(self.jobs) as pool, bar:
            try:
                while self.waiting or running:
                    for run in self.ready(self.jobs - len(running)):
                        running[pool.submit(self.train, run)] = run
                    bar.set_postfix_str(", ".join(run.users[0] for run in running.values()))
                    for future in wait(running, return_when=FIRST_COMPLETED).done:
                        self.finish(running.pop(future), future.result())
                        bar.update()
                    bar.update(self.drop_orphans({run.name for run in running.values()}))
            finally:                         # an interrupted sweep takes its processes with it
                for process in list(self.processes.values()):
                    process.terminate()
        return self.failures

    def ready(self, free: int) -> list[PlannedRun]:
        """Up to `free` runs whose start is trained, taken from those that wait."""
        chosen = [run for run in self.waiting if run.depends_on is None or run.depends_on.done][:max(free, 0)]
        self.waiting = [run for run in self.waiting if run not in chosen]
        return chosen

    def train(self, run: PlannedRun) -> int:
        """The exit code of one run; 0 if another process has trained it meanwhile."""
        with locked(run) as lock:
            if run.done:
                return 0
            run.folder.mkdir(parents=True, exist_ok=True)
            with open(run.folder / "log.txt", "a") as log:
                log.write(f"{shlex.join(command_of(run))}\n")
                log.flush()
                # It inherits the lock: should this sweep be killed, the next one waits for it.
                process = subprocess.Popen([sys.executable, str(ROOT / "main_train.py"), *run.arguments], stdout=log,
                                           stderr=subprocess.STDOUT, env=self.environment(), pass_fds=(lock.fileno(),))
                self.processes[run.name] = process
                code = process.wait()
                del self.processes[run.name]
        return code

    def environment(self) -> dict[str, str]:
        """Share the cores among runs side by side, unless the user has set the threads of each."""
        if self.jobs == 1 or "OMP_NUM_THREADS" in os.environ:
            return dict(os.environ)
        return {**os.environ, "OMP_NUM_THREADS": str(max(1, (os.cpu_count() or 1) // self.jobs))}

    def finish(self, run: PlannedRun, code: int) -> None:
        if code == 0 and run.done:
            return
        lines = (run.folder / "log.txt").read_text(encoding="utf-8", errors="replace").splitlines()
        self.report(Failure(run, code, [line for line in lines if line.strip()][-LOG_LINES:]))

    def drop_orphans(self, running: set[str]) -> int:
        """Give up the runs whose start is not there and will not come; returns how many."""
        coming = running | {run.name for run in self.waiting}
        orphans = [run for run in self.waiting
                   if run.depends_on and not run.depends_on.done and run.depends_on.name not in coming]
        for run in orphans:
            self.report(Failure(run, None, [f"its start {run.depends_on.name} failed"]))
        self.waiting = [run for run in self.waiting if run not in orphans]
        return len(orphans)

    def report(self, failure: Failure) -> None:
        self.failures.append(failure)
        tqdm.write(f"failed: {str(failure).splitlines()[0]}", file=sys.stderr)
