"""Optimisers against their formulas, schedules against closed forms, and both after a resume."""

import copy
import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.optim.lr_scheduler import StepLR

from engine.config import compose
from engine.optimiser import Schedule, load_optimiser, make_optimiser

SCHEDULES = ["step", "constant", "linear", "polynomial", "cosine"]
EPOCH = 5                                        # steps of an epoch in these tests


def options(**changes) -> dict:
    return compose(None, [f"train.{key}={value}" for key, value in {"learning_rate": 1.0, **changes}.items()])["train"]


def a_weight() -> torch.nn.Parameter:
    return torch.nn.Parameter(torch.tensor([2.0]))


def rates(train: dict, steps: int) -> list[float]:
    """The learning rate of every step of a run of that length."""
    optimiser = make_optimiser([a_weight()], train)
    schedule, rates_by_step = Schedule(optimiser, train, steps), []
    for step in range(1, steps + 1):
        rates_by_step.append(optimiser.param_groups[0]["lr"])
        advance(optimiser, schedule, step)
    return rates_by_step


def advance(optimiser, schedule, step: int) -> None:
    optimiser.step()
    schedule.after_step()
    if step % EPOCH == 0:
        schedule.after_epoch()


def closed_form(train: dict, steps: int, step: int) -> float:
    warmup = min(round(train["warmup"] * steps), steps - 1)
    rise = min(1.0, (step + 1) / (warmup + 1))
    done = max(0, step - warmup) / (steps - warmup)
    return {"step": rise * train["lr_gamma"] ** (step // EPOCH // train["lr_step"]), "constant": rise,
            "linear": rise * (1 - done), "polynomial": rise * (1 - done) ** 0.9,
            "cosine": rise * (1 + math.cos(math.pi * done)) / 2}[train["schedule"]]


@settings(deadline=None, max_examples=60)
@given(schedule=st.sampled_from(SCHEDULES), warmup=st.sampled_from([0.0, 0.1, 0.3, 0.99]), steps=st.integers(1, 40),
       drop=st.integers(1, 3))
def test_the_rate_of_every_step_is_its_closed_form(schedule, warmup, steps, drop):
    train = options(schedule=schedule, warmup=warmup, lr_step=drop)
    expected = [closed_form(train, steps, step) for step in range(steps)]
    assert rates(train, steps) == pytest.approx(expected, rel=1e-5, abs=1e-7)


def test_warm_up_by_hand():
    """A third of 9 steps is 3: a quarter, a half, three quarters, all; then 1/6 less a step."""
    by_step = rates(options(schedule="linear", warmup=1 / 3), 9)
    assert by_step == pytest.approx([1 / 4, 2 / 4, 3 / 4, 1, 5 / 6, 4 / 6, 3 / 6, 2 / 6, 1 / 6])


def test_without_options_the_rate_is_that_of_step_lr_to_the_bit():
    train = options(lr_step=2)
    optimiser = torch.optim.Adam([a_weight()], lr=1.0)
    plain, expected = StepLR(optimiser, 2, train["lr_gamma"]), []
    for step in range(1, 31):
        expected.append(optimiser.param_groups[0]["lr"])
        optimiser.step()
        if step % EPOCH == 0:
            plain.step()
    assert rates(train, 30) == expected and len(set(expected)) > 2


@pytest.mark.parametrize("schedule", SCHEDULES)
@pytest.mark.parametrize("stop", [2, 7, 20])     # in the warm-up, behind it, behind a drop
def test_a_resumed_schedule_goes_on_to_the_bit(schedule, stop):
    train, steps = options(schedule=schedule, warmup=0.2, lr_step=2), 25
    optimiser = make_optimiser([a_weight()], train)
    part = Schedule(optimiser, train, steps)
    for step in range(1, stop + 1):
        advance(optimiser, part, step)
    saved = copy.deepcopy((optimiser.state_dict(), part.state_dict()))
    optimiser = make_optimiser([a_weight()], train)
    part, rates_by_step = Schedule(optimiser, train, steps), []
    optimiser.load_state_dict(saved[0])
    part.load_state_dict(saved[1])
    for step in range(stop + 1, steps + 1):
        rates_by_step.append(optimiser.param_groups[0]["lr"])
        advance(optimiser, part, step)
    assert rates_by_step == rates(train, steps)[stop:]


def test_the_state_of_a_run_that_knew_step_lr_alone_is_read():
    train = options(lr_step=2)
    old = torch.optim.Adam([a_weight()], lr=1.0)
    plain = StepLR(old, 2, train["lr_gamma"])
    old.step()
    for _ in range(3):
        plain.step()
    optimiser = make_optimiser([a_weight()], train)
    schedule = Schedule(optimiser, train, 100)
    optimiser.load_state_dict(old.state_dict())
    schedule.load_state_dict(plain.state_dict())
    assert optimiser.param_groups[0]["lr"] == pytest.approx(0.1)
    schedule.after_epoch()
    assert optimiser.param_groups[0]["lr"] == pytest.approx(0.01)


def after_two_steps(train: dict) -> float:
    """A weight of 2 under the loss w^2 / 2, whose gradient is w."""
    weight = a_weight()
    optimiser = make_optimiser([weight], train)
    for _ in range(2):
        optimiser.zero_grad()
        (weight ** 2 / 2).sum().backward()
        optimiser.step()
    return weight.item()


def test_sgd_with_nesterovs_momentum_and_decay_by_hand():
    """Gradient g = (1 + decay) w; buffer b = g, then m b + g; the step is rate * (g + m b)."""
    w, buffer = 2.0, 0.0
    for _ in range(2):
        gradient = 1.5 * w
        buffer = 0.9 * buffer + gradient
        w -= 0.1 * (gradient + 0.9 * buffer)
    train = options(optimiser="sgd", learning_rate=0.1, momentum=0.9, weight_decay=0.5)
    assert after_two_steps(train) == pytest.approx(w, rel=1e-6)
    plain = options(optimiser="sgd", learning_rate=0.1)
    assert after_two_steps(plain) == pytest.approx(2 * 0.9 ** 2, rel=1e-6)


@pytest.mark.parametrize("optimiser", ["adam", "adamw"])
def test_adam_and_adamw_with_decay_and_beta2_by_hand(optimiser):
    """Adam adds the decay to the gradient, AdamW takes it off the weight."""
    w, mean, square, rate, decay, beta2 = 2.0, 0.0, 0.0, 0.1, 0.5, 0.98
    for step in (1, 2):
        gradient = w + (decay * w if optimiser == "adam" else 0)
        w -= rate * decay * w if optimiser == "adamw" else 0
        mean, square = 0.9 * mean + 0.1 * gradient, beta2 * square + (1 - beta2) * gradient ** 2
        w -= rate * (mean / (1 - 0.9 ** step)) / (math.sqrt(square / (1 - beta2 ** step)) + 1e-8)
    train = options(optimiser=optimiser, learning_rate=rate, weight_decay=decay, beta2=beta2)
    assert after_two_steps(train) == pytest.approx(w, rel=1e-5)


def test_a_state_with_another_switch_is_refused():
    """torch would look for running sums that are not there, at the next step."""
    def made():
        return make_optimiser([a_weight()], options())

    state = made().state_dict()
    load_optimiser(made(), state)
    state["param_groups"][0]["fused"] = None             # as older runs have it
    load_optimiser(made(), state)
    state["param_groups"][0]["amsgrad"] = True
    with pytest.raises(ValueError, match="its switch 'amsgrad' is True"):
        load_optimiser(made(), state)
