"""Eq. 8 worked by hand."""

import math

import pytest
import torch
from torch.nn import functional as F
from toy import SPEC, random_batch

from engine.config import compose
from models import build_model
from models.objective import ACROSS, NonFiniteLoss, answer_loss, check_finite, total_loss


def test_total_is_the_weighted_sum_of_named_terms():
    terms = {"answer": {"complete": 1.0, "audio_missing": 2.0}, "match": {"audio_missing": 4.0},
             "rmmr": {ACROSS: 8.0}, "ave": {ACROSS: 16.0}}
    total = total_loss(terms, {"answer": 1.0, "match": 0.5, "rmmr": 0.25, "ave": 2.0})
    assert float(total) == 1 + 2 + 0.5 * 4 + 0.25 * 8 + 2 * 16


def test_a_term_without_weight_is_refused():
    with pytest.raises(KeyError, match="'unknown' has no weight"):
        total_loss({"unknown": {ACROSS: torch.tensor(1.0)}}, {"answer": 1.0})


def test_answer_loss_by_hand_and_without_unknown_answers():
    logits = torch.tensor([[0.0, math.log(3.0)], [0.0, 0.0], [5.0, 1.0]])
    known = -math.log(3 / 4), -math.log(1 / 2)
    assert float(answer_loss(logits, torch.tensor([1, 0, -1]))) == pytest.approx(sum(known) / 2, rel=1e-6)
    assert float(answer_loss(logits, torch.tensor([-1, -1, -1]))) == 0


def test_label_smoothing_by_hand():
    """A fifth of the weight is spread over both answers; unknown answers count nowhere."""
    logits = torch.tensor([[0.0, math.log(3.0)], [5.0, 1.0]])
    expected = -(0.9 * math.log(3 / 4) + 0.1 * math.log(1 / 4))
    assert float(answer_loss(logits, torch.tensor([1, -1]), 0.2)) == pytest.approx(expected, rel=1e-6)


@pytest.mark.parametrize("method", [["method=modality_dropout"], ["method=actionmae"],
                                    ["method=rmm_avr", "avr.enabled=false"]], ids=lambda options: options[0])
def test_label_smoothing_reaches_the_loss_of_every_view(method):
    config = compose(None, ["dataset=music_avqa", *method, "train.label_smoothing=0.2"])
    model = build_model(SPEC, config["backbone"], config["method"], config["train"]["label_smoothing"]).train()
    batch = random_batch(4)
    output = model(batch)
    assert len(output.logits) >= 3
    for name, logits in output.logits.items():
        expected = F.cross_entropy(logits, batch.answer, label_smoothing=0.2)
        torch.testing.assert_close(output.terms["answer"][name], expected)


def test_a_term_that_is_not_finite_is_named():
    with pytest.raises(NonFiniteLoss, match="'ave' is nan"):
        check_finite({"answer": 1.0, "ave": float("nan")})
