"""The optimiser and its learning rate over a run, all of torch's own classes."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import torch
from torch import nn
from torch.optim import SGD, Adam, AdamW, Optimizer
from torch.optim.lr_scheduler import CosineAnnealingLR, LinearLR, LRScheduler, PolynomialLR, SequentialLR, StepLR

POWERS = {"linear": 1.0, "polynomial": 0.9}      # 0.9: ShaSpec's


def make_optimiser(parameters: Iterable[nn.Parameter], train: dict[str, Any]) -> Optimizer:
    """The optimiser that `train.optimiser` names; the momentum of SGD is Nesterov's.

    Fused: one kernel per tensor instead of ten. Adam's part of a step of AVST on the embedded
    benchmark falls from 3.5 to 1.5 of 30 ms (one core); weights differ by rounding.
    """
    common = {"lr": train["learning_rate"], "weight_decay": train["weight_decay"], "fused": True}
    if train["optimiser"] == "sgd":
        return SGD(parameters, momentum=train["momentum"], nesterov=train["momentum"] > 0, **common)
    kind = AdamW if train["optimiser"] == "adamw" else Adam
    return kind(parameters, betas=(0.9, train["beta2"]), **common)


def load_optimiser(optimiser: Optimizer, state: dict[str, Any]) -> None:
    """Continue with `state`, which another optimiser of these parameters had.

    Raises:
        ValueError: it is not such a state; torch itself would fail at the next step.
    """
    own = optimiser.state_dict()["param_groups"]
    check_types(state["param_groups"], own)
    for was, now in zip(state["param_groups"], own, strict=True):
        for key, switch in now.items():            # these decide which running sums there are
            if isinstance(switch, bool) and was.get(key) not in (None, switch):
                raise ValueError(f"its switch '{key}' is {was[key]}, that of this run {switch}")
    optimiser.load_state_dict(state)
    names = {frozenset(sums) for sums in optimiser.state.values() if sums}
    if len(names) > 1:
        raise ValueError("its parameters do not have the same running sums")
    for parameter, sums in optimiser.state.items():
        for name, value in sums.items():
            if value.shape != (() if name == "step" else parameter.shape) or value.layout != torch.strided:
                raise ValueError(f"the running sum '{name}' of a parameter has shape {list(value.shape)}")


def check_types(saved: Any, own: Any) -> None:
    """ValueError unless `saved` is nested as `own` is, with values of the same types.

    A switch may be None, and what is not in `saved` stays as it is: older runs have fewer options.
    """
    number = (int, float)
    same = type(saved) is type(own) or type(saved) in number and type(own) in number
    if not same and not (saved is None and isinstance(own, bool)):
        raise ValueError(f"it holds {str(saved)[:40]} in place of {own}")
    if isinstance(own, dict):
        for key in own.keys() & saved.keys():
            check_types(saved[key], own[key])
    elif isinstance(own, list | tuple):
        for was, now in zip(saved, own, strict=True):
            check_types(was, now)


def depends_on_length(train: dict[str, Any]) -> bool:
    """Whether the learning rate of a step depends on how many steps the run has."""
    return train["warmup"] > 0 or train["schedule"] not in ("step", "constant")


class Schedule:
    """The learning rate of a run of `steps` optimiser steps.

    Call `after_step` behind every step and `after_epoch` behind every epoch. With W steps of
    warm-up, the share `train.warmup` of all, step k = 0, 1, ... has (k + 1) / (W + 1) of the rate;
    then `train.schedule` follows.
    """

    def __init__(self, optimiser: Optimizer, train: dict[str, Any], steps: int) -> None:
        warmup = min(round(train["warmup"] * steps), steps - 1)
        by_step = [LinearLR(optimiser, 1 / (warmup + 1), 1.0, warmup)] if warmup > 0 else []
        if train["schedule"] in POWERS:
            by_step.append(PolynomialLR(optimiser, steps - warmup, POWERS[train["schedule"]]))
        elif train["schedule"] == "cosine":
            by_step.append(CosineAnnealingLR(optimiser, steps - warmup))
        self.parts: dict[str, LRScheduler] = {}
        if by_step:
            both = len(by_step) == 2
            self.parts["step"] = SequentialLR(optimiser, by_step, [warmup]) if both else by_step[0]
        if train["schedule"] == "step":
            self.parts["epoch"] = StepLR(optimiser, train["lr_step"], train["lr_gamma"])

    def after_step(self) -> None:
        if "step" in self.parts:
            self.parts["step"].step()

    def after_epoch(self) -> None:
        if "epoch" in self.parts:
            self.parts["epoch"].step()

    def state_dict(self) -> dict[str, Any]:
        return {name: part.state_dict() for name, part in self.parts.items()}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Also that of a run begun when every schedule was a StepLR, which is its state itself."""
        state = {"epoch": state} if "step_size" in state else state
        for name, part in self.parts.items():
            check_types(state[name], part.state_dict())
            part.load_state_dict(state[name])
