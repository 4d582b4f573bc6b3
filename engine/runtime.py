"""Device, processes, precision and random state."""

from __future__ import annotations

import ctypes
import os
import platform
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from accelerate import Accelerator
from accelerate.utils import DistributedDataParallelKwargs

from dataset.files import remove_leftovers
from dataset.lock import alone_in
from dataset.memory import refuse_beyond_memory
from dataset.types import DataSpec
from engine.errors import UsageError


def make_accelerator(runtime: dict[str, Any]) -> Accelerator:
    """One process, or one of those that torchrun started (gloo on CPU, NCCL on CUDA)."""
    wanted = runtime["device"]
    if wanted == "cuda" and not torch.cuda.is_available():
        raise UsageError("runtime.device=cuda was asked for, but this PyTorch sees no CUDA device; use "
                         "runtime.device=auto or install a CUDA build of torch")
    on_cpu = wanted == "cpu" or not torch.cuda.is_available()
    if on_cpu:
        keep_freed_memory()
    # A batch may leave parameters out (no valid negative, nothing absent): DDP must look for them.
    handlers = [DistributedDataParallelKwargs(find_unused_parameters=True)]
    return Accelerator(cpu=on_cpu, mixed_precision="bf16" if runtime["bf16"] else "no", kwargs_handlers=handlers)


def keep_freed_memory() -> bool:
    """Let glibc keep the memory of large tensors for the next ones; whether it does.

    By default it returns blocks above 32 MB to the system at once. At the real shapes every kernel
    then writes to new pages, which took a tenth of a training step and a third of an answer
    (docs/costs.md). A glibc before 2.35 refuses the first option, and the second alone would do
    harm.
    """
    if platform.libc_ver()[0] != "glibc":
        return False
    threshold, trim = -3, -1                       # M_MMAP_THRESHOLD and M_TRIM_THRESHOLD of malloc.h
    mallopt = ctypes.CDLL(None).mallopt
    return bool(mallopt(threshold, 2 ** 31 - 1) and mallopt(trim, -1))


@contextmanager
def alone_in_run(folder: Path) -> Iterator[None]:
    """Hold a run folder by the first process of a training; delete what dead ones left there."""
    if int(os.environ.get("RANK", 0)) > 0:
        yield
        return
    with alone_in(folder, "training in"):
        remove_leftovers(folder)
        yield


def refuse_huge_batch(section: str, size: int, questions: int, spec: DataSpec) -> None:
    """DataError where the features of one batch would not fit into memory."""
    values = spec.segments * (spec.audio_channels + spec.visual_channels * spec.tokens)
    refuse_beyond_memory(4.0 * values * min(size, questions), f"a batch of {min(size, questions)} questions",
                         f"set a smaller {section}.batch_size")


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
