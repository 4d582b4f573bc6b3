"""TensorBoard with every named loss, the progress of a loop, the environment of a run."""

from __future__ import annotations

import platform
import subprocess
import sys
import time
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.utils.tensorboard import SummaryWriter
from tqdm import tqdm

LIBRARIES = ("torch", "torchvision", "numpy", "accelerate", "denoising-diffusion-pytorch")
MINUTE = 60.0                # seconds between two lines of a log that is no terminal
LINE = "{desc}: {n_fmt} of {total_fmt}, {elapsed} gone, {remaining} left{postfix}"


def environment(device: torch.device, processes: int) -> dict[str, Any]:
    """Versions, hardware and code state, for environment.json."""
    name = torch.cuda.get_device_name(device) if device.type == "cuda" else platform.processor() or platform.machine()
    return {
        "python": platform.python_version(),
        "libraries": {name: version(name) for name in LIBRARIES},
        "device": f"{device.type}: {name}",
        "threads": torch.get_num_threads(),
        "processes": processes,
        "code": code_version(),
        "command": [Path(sys.argv[0]).name, *sys.argv[1:]],
    }


def code_version() -> str | None:
    """The commit of the code, marked where the working tree differs; None outside a checkout."""
    try:
        command = ["git", "-C", str(Path(__file__).parent), "describe", "--always", "--dirty"]
        return subprocess.run(command, capture_output=True, text=True, timeout=10, check=True).stdout.strip()
    except (OSError, subprocess.SubprocessError):
        return None


class Progress(tqdm):
    """A bar over `total` batches on a terminal; elsewhere a line every minute."""

    postfix = None           # the bar of a log file has none of its own

    def __init__(self, batches: Iterable, title: str, total: int, shown: bool = True) -> None:
        super().__init__(batches, desc=title, total=total, leave=False, disable=None if shown else True)
        self.title, self.prints = title, shown and self.disable

    def __iter__(self) -> Iterator:
        started = printed = time.monotonic()
        for done, batch in enumerate(super().__iter__(), 1):
            yield batch
            now = time.monotonic()
            if self.prints and now - printed >= MINUTE:
                printed = now
                print(self.format_meter(done, self.total, now - started, prefix=self.title, bar_format=LINE,
                                        postfix=self.postfix), flush=True)


@dataclass
class Mean:
    """Running means of named scalars, summed on the device."""

    sums: dict[str, Tensor] = field(default_factory=dict)
    steps: int = 0

    def add(self, sums: dict[str, Tensor], steps: int) -> None:
        self.sums |= {name: self.sums.get(name, 0) + value for name, value in sums.items()}
        self.steps += steps

    def result(self) -> dict[str, float]:
        return {name: float(value) / self.steps for name, value in self.sums.items()}


def by_path(terms: dict[str, Any]) -> dict[str, Tensor]:
    """{`TERM/VIEW`: value} of {term: {view: value}}; {term: value} and the view "" add nothing."""
    flat = {}
    for term, value in terms.items():
        views = value if isinstance(value, dict) else {"": value}
        flat |= {f"{term}/{view}".rstrip("/"): scalar.detach() for view, scalar in views.items()}
    return flat


class LossLog:
    """Means of every loss term, to TensorBoard every `every` steps, and over the epoch.

    Its points are `loss/TERM/VIEW`, with the learning rate and the seconds of a step beside them;
    the means it returns are named as in metrics.jsonl, `TERM_VIEW`. The host waits for the device
    only when a point is due.
    """

    def __init__(self, folder: Path | None, every: int) -> None:
        self.writer = SummaryWriter(str(folder)) if folder else None
        self.every = every
        self.window, self.epoch = Mean(), Mean()
        self.rate = self.first = 0.0                 # learning rate; when the first step of the window was done

    def add(self, terms: dict[str, Any], step: int, rate: float) -> dict[str, float] | None:
        """Count one step of that learning rate; returns the window's means when a point is due.

        `terms`: scalars by term, or by term and view.
        """
        if not self.window.steps:
            self.first = time.perf_counter()
        self.rate = rate
        self.window.add(by_path(terms), 1)
        return self.flush(step) if self.window.steps >= self.every else None

    def flush(self, step: int) -> dict[str, float]:
        """Close the window: write its means, add it to the epoch."""
        window, self.window = self.window, Mean()
        means = window.result()
        self.epoch.add(window.sums, window.steps)
        points = {"learning_rate": self.rate, **{f"loss/{path}": value for path, value in means.items()}}
        if window.steps > 1:
            points["seconds_per_step"] = (time.perf_counter() - self.first) / (window.steps - 1)
        self.scalars(points, step)
        return {path.replace("/", "_"): value for path, value in means.items()}

    def end_epoch(self, step: int) -> dict[str, float]:
        """Means over the epoch, and start anew."""
        if self.window.steps:
            self.flush(step)
        epoch, self.epoch = self.epoch, Mean()
        return {path.replace("/", "_"): value for path, value in epoch.result().items()}

    def scalars(self, values: dict[str, float], step: int) -> None:
        if self.writer:
            for name, value in values.items():
                self.writer.add_scalar(name, value, step)

    def sync(self) -> None:
        """Let the file have all points so far."""
        if self.writer:
            self.writer.flush()

    def close(self) -> None:
        if self.writer:
            self.writer.close()
