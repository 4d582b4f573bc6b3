"""Multiple choice with every backbone: scores permute with the candidates; the head is trained."""

from dataclasses import replace

import pytest
import torch
from toy import SPEC, random_batch, unweighted

from engine.config import compose
from models import BACKBONES, METHODS, build_model

CHOICES = replace(SPEC, choices=3, answers=0)
PAIRS = [(b, "plain") for b in BACKBONES] + [("avst", m) for m in METHODS if m != "plain"]


@pytest.mark.parametrize("backbone,method", PAIRS)
def test_permuting_the_candidates_permutes_the_scores(backbone, method):
    config = compose(None, ["dataset=avqa", f"backbone={backbone}", f"method={method}"])
    torch.manual_seed(0)
    model, batch = build_model(CHOICES, config["backbone"], config["method"]), random_batch(4, spec=CHOICES)
    unweighted(model.train(), batch).backward()
    assert model.head.score.weight.grad.abs().sum() > 0
    order = torch.tensor([2, 0, 1])
    with torch.no_grad():
        scores = model.eval()(batch).logits["complete"]
        permuted = model(replace(batch, choices=batch.choices[:, order])).logits["complete"]
    assert scores.shape == (4, 3) and scores.std() > 0
    torch.testing.assert_close(permuted, scores[:, order])
