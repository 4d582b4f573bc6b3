"""The best linear denoiser against a formula, a least-squares fit and the untrained skip."""

import pytest
import torch

from scripts.linear_denoiser import wiener_error


def test_white_features_leave_what_the_skip_leaves():
    """On unit variance without correlation the error is alpha-bar itself."""
    kept = torch.tensor([0.9, 0.5]).double()
    white = torch.randn(200_000, 3, generator=torch.Generator().manual_seed(0)).double()
    assert wiener_error(torch.eye(3).double(), white, kept) == pytest.approx(0.7, abs=0.005)


def test_a_direction_without_variance_shows_its_noise():
    """Two channels that are equal: their difference is noise alone, their sum worked by hand."""
    k = 0.8
    same = torch.randn(200_000, 1, generator=torch.Generator().manual_seed(1)).double().expand(-1, 2)
    by_hand = (0 + 2 * k / (2 * k + 1 - k)) / 2
    assert wiener_error(torch.ones(2, 2).double(), same, torch.tensor([k]).double()) == pytest.approx(by_hand, abs=0.01)


def test_it_is_the_least_squares_fit():
    g = torch.Generator().manual_seed(2)
    x = torch.randn(100_000, 4, generator=g).double() @ torch.randn(4, 4, generator=g).double()
    noise, k = torch.randn(100_000, 4, generator=g).double(), torch.tensor(0.7).double()
    noised = k.sqrt() * x + (1 - k).sqrt() * noise
    fit = torch.linalg.lstsq(noised, noise).solution
    fitted = float((noised @ fit - noise).square().mean())
    assert wiener_error(x.T @ x / len(x), x, k[None]) == pytest.approx(fitted, abs=0.005)
