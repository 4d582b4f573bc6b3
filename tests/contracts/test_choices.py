"""Laws of a multiple choice over every pair: what the head over candidates adds to L1-L8."""

from dataclasses import replace

import pytest
import torch
from contracts.pairs import PARAMS, answer, build
from toy import SPEC, random_batch

from dataset.types import AUDIO
from models.objective import total_loss

CHOICES = replace(SPEC, choices=3, answers=0)


@pytest.fixture(scope="module", params=PARAMS)
def model(request):
    return build(request.param, CHOICES)


def test_permuting_the_candidates_permutes_the_scores(model):
    batch, order = random_batch(5, spec=CHOICES), torch.tensor([2, 0, 1])
    batch.presence[:2, :, AUDIO] = False
    scores = answer(model, batch)
    assert scores.shape == (5, 3) and scores.std(dim=1).min() > 0
    torch.testing.assert_close(answer(model, replace(batch, choices=batch.choices[:, order])), scores[:, order])


def test_permuting_the_batch_permutes_the_scores(model):
    batch, order = random_batch(4, spec=CHOICES), torch.tensor([3, 0, 2, 1])
    torch.testing.assert_close(answer(model, batch)[order], answer(model, batch.map(lambda t: t[order])))


def test_every_view_is_scored_and_trains_all(model):
    """Gradients reach every parameter."""
    output = model.train()(random_batch(5, spec=CHOICES))
    assert all(view.shape == (5, 3) for view in output.logits.values())
    total_loss(output.terms, dict.fromkeys(model.loss_weights, 1.0)).backward()
    still = [name for name, p in model.named_parameters() if p.requires_grad and (p.grad is None or not p.grad.any())]
    assert still == []
