"""The measures of the diagnosis against closed forms and limits."""

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from scripts.study.diagnosis import Fit, sharpness


def fit(real: torch.Tensor, guess: torch.Tensor, parts: int = 1) -> dict:
    sums = Fit()
    for a, b in zip(real.chunk(parts), guess.chunk(parts), strict=True):
        sums.add(a, b)
    return sums.result()


@given(st.integers(1, 7), st.integers(0, 1000))
def test_r2_and_spread_do_not_depend_on_the_batches(parts, seed):
    """R2 and spread are those of all rows whatever the batches."""
    rng = np.random.default_rng(seed)
    real, guess = rng.normal(size=(40, 3)), rng.normal(size=(40, 3)) + 1
    measured = fit(torch.from_numpy(real), torch.from_numpy(guess), parts)
    total = ((real - real.mean(0)) ** 2).sum()
    assert measured["r2"] == pytest.approx(1 - ((real - guess) ** 2).sum() / total)
    assert measured["spread"] == pytest.approx(np.sqrt(((guess - guess.mean(0)) ** 2).sum() / total))


def test_the_real_feature_explains_all_and_its_mean_nothing():
    real = torch.randn(50, 4)
    assert fit(real, real) == pytest.approx({"n": 50, "r2": 1.0, "spread": 1.0})
    assert fit(real, real.mean(0).expand_as(real)) == pytest.approx({"n": 50, "r2": 0.0, "spread": 0.0}, abs=1e-5)
    assert fit(torch.ones(5, 2), torch.zeros(5, 2)) == {"n": 5, "r2": None, "spread": None}


def test_sharpness_of_uniform_and_of_one_hot_addressing():
    uniform, single = torch.full((3, 8), 1 / 8), torch.eye(8)[:3]
    assert sharpness(uniform) == pytest.approx(
        {"entropy": 1.0, "effective_slots": 8.0, "largest_weight_times_slots": 1.0})
    assert sharpness(single) == pytest.approx(
        {"entropy": 0.0, "effective_slots": 1.0, "largest_weight_times_slots": 8.0})
