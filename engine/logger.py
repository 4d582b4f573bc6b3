"""Run logs: TensorBoard with every named loss, one JSON line per epoch, the environment of the run."""

from __future__ import annotations

import platform
import subprocess
import sys
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch
from torch.utils.tensorboard import SummaryWriter

LIBRARIES = ("torch", "torchvision", "numpy", "accelerate", "denoising-diffusion-pytorch")


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
    """The commit of the code, with a mark where the working tree differs; None outside a git checkout."""
    try:
        command = ["git", "-C", str(Path(__file__).parent), "describe", "--always", "--dirty"]
        return subprocess.run(command, capture_output=True, text=True, timeout=10, check=True).stdout.strip()
    except (OSError, subprocess.SubprocessError):
        return None


class LossLog:
    """Means of every named term since the last point, to TensorBoard every `every` steps and over the epoch.

    Terms are summed on the device; the host waits for them only when a point is due.
    """

    def __init__(self, folder: Path | None, every: int) -> None:
        self.writer = SummaryWriter(str(folder)) if folder else None
        self.every = every
        self.epoch_sum: dict[str, torch.Tensor] = {}
        self.epoch_steps = 0
        self.window_sum: dict[str, torch.Tensor] = {}
        self.window_steps = 0

    def add(self, terms: dict[str, torch.Tensor], step: int) -> dict[str, float] | None:
        """Count one step; returns the window's means when a point is due."""
        for name, value in terms.items():
            self.window_sum[name] = self.window_sum.get(name, 0) + value.detach()
        self.window_steps += 1
        return self.flush(step) if self.window_steps >= self.every else None

    def flush(self, step: int) -> dict[str, float]:
        """Close the window: write its means, add it to the epoch."""
        means = {name: float(value) / self.window_steps for name, value in self.window_sum.items()}
        for name, value in self.window_sum.items():
            self.epoch_sum[name] = self.epoch_sum.get(name, 0) + value
        self.epoch_steps += self.window_steps
        self.window_sum, self.window_steps = {}, 0
        self.scalars({f"loss/{name}": value for name, value in means.items()}, step)
        return means

    def end_epoch(self, step: int) -> dict[str, float]:
        """Means over the epoch, and start anew."""
        if self.window_steps:
            self.flush(step)
        means = {name: float(value) / self.epoch_steps for name, value in self.epoch_sum.items()}
        self.epoch_sum, self.epoch_steps = {}, 0
        return means

    def scalars(self, values: dict[str, float], step: int) -> None:
        if self.writer:
            for name, value in values.items():
                self.writer.add_scalar(name, value, step)

    def close(self) -> None:
        if self.writer:
            self.writer.close()
