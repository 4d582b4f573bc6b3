"""Device, processes, precision and seeds."""

from __future__ import annotations

from typing import Any

import torch
from accelerate import Accelerator
from accelerate.utils import DistributedDataParallelKwargs, set_seed

from engine.errors import UsageError


def make_accelerator(runtime: dict[str, Any]) -> Accelerator:
    """One process, or one of those that torchrun started (gloo on CPU, NCCL on CUDA)."""
    wanted = runtime["device"]
    if wanted == "cuda" and not torch.cuda.is_available():
        raise UsageError("runtime.device=cuda was asked for, but this PyTorch sees no CUDA device; use "
                         "runtime.device=auto or install a CUDA build of torch")
    on_cpu = wanted == "cpu" or not torch.cuda.is_available()
    # A method may leave parameters out of a batch (no valid negative, nothing absent), so DDP must look for them.
    handlers = [DistributedDataParallelKwargs(find_unused_parameters=True)]
    return Accelerator(cpu=on_cpu, mixed_precision="bf16" if runtime["bf16"] else "no", kwargs_handlers=handlers)


def seed_everything(seed: int) -> None:
    """Python, NumPy and torch; the same on every process, so that all start from the same weights."""
    set_seed(seed)


def random_state() -> dict[str, Any]:
    """The generators that training draws from."""
    state = {"torch": torch.get_rng_state()}
    if torch.cuda.is_available():
        state["cuda"] = torch.cuda.get_rng_state()
    return state


def restore_random_state(state: dict[str, Any]) -> None:
    torch.set_rng_state(state["torch"])
    if "cuda" in state and torch.cuda.is_available():
        torch.cuda.set_rng_state(state["cuda"])
