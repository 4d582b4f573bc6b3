"""Eq. 8 worked by hand."""

import math

import pytest
import torch

from models.objective import NonFiniteLoss, answer_loss, check_finite, total_loss


def test_total_is_the_weighted_sum_of_named_terms():
    terms = {"answer_complete": 1.0, "answer_audio_missing": 2.0, "match_audio_missing": 4.0, "rmmr": 8.0, "ave": 16.0}
    weights = {"answer": 1.0, "match": 0.5, "rmmr": 0.25, "ave": 2.0}
    total = total_loss({k: torch.tensor(v) for k, v in terms.items()}, weights)
    assert float(total) == 1 + 2 + 0.5 * 4 + 0.25 * 8 + 2 * 16


def test_a_term_without_weight_is_refused():
    with pytest.raises(KeyError):
        total_loss({"unknown": torch.tensor(1.0)}, {"answer": 1.0})


def test_answer_loss_by_hand_and_without_unknown_answers():
    logits = torch.tensor([[0.0, math.log(3.0)], [0.0, 0.0], [5.0, 1.0]])
    known = -math.log(3 / 4), -math.log(1 / 2)
    assert float(answer_loss(logits, torch.tensor([1, 0, -1]))) == pytest.approx(sum(known) / 2, rel=1e-6)
    assert float(answer_loss(logits, torch.tensor([-1, -1, -1]))) == 0


def test_a_term_that_is_not_finite_is_named():
    with pytest.raises(NonFiniteLoss, match="'ave' is nan"):
        check_finite({"answer": 1.0, "ave": float("nan")})
