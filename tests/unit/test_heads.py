"""The head over candidates: its formula, and the laws it adds to every pair."""

from dataclasses import replace

import pytest
import torch
from toy import SPEC, random_batch, unweighted

from dataset.types import AUDIO
from engine.config import compose
from models import BACKBONES, METHODS, build_model
from models.avqa import repeat_batch
from models.heads import MultipleChoice, OpenVocabulary

CHOICE_SPEC = replace(SPEC, choices=3, answers=0)
PAIRS = [(b, m) for b in BACKBONES for m in METHODS]
of_every_pair = pytest.mark.parametrize("backbone,method", PAIRS)


def make(backbone: str, method: str, spec=CHOICE_SPEC):
    torch.manual_seed(0)
    config = compose(None, ["dataset=avqa", f"backbone={backbone}", f"method={method}"])
    return build_model(spec, config["backbone"], config["method"])


def logits(model, batch) -> torch.Tensor:
    with torch.no_grad():
        return model.eval()(batch).logits["complete"]


def test_the_scores_are_those_of_the_formula():
    torch.manual_seed(0)
    head, batch = MultipleChoice(4), random_batch(2, spec=CHOICE_SPEC)
    vector, table = torch.randn(2, 4), torch.randn(11, 4)

    def encode(words: torch.Tensor) -> torch.Tensor:
        return table[words].sum(dim=1)

    logits = head(vector, batch, encode)
    assert logits.shape == (2, 3)
    for i in range(2):
        for j in range(3):
            e = sum(table[word] for word in batch.choices[i, j])
            hidden = torch.tanh(vector[i] * (head.project.weight @ e + head.project.bias))
            torch.testing.assert_close(logits[i, j], (head.score.weight[0] * hidden).sum())


def test_the_head_follows_the_data():
    assert isinstance(make("avst", "plain").head, MultipleChoice)
    assert isinstance(make("avst", "plain", SPEC).head, OpenVocabulary)


@pytest.mark.parametrize("backbone", BACKBONES)
def test_candidates_are_encoded_as_questions_are(backbone):
    model, batch = make(backbone, "plain").eval(), random_batch(3, spec=CHOICE_SPEC)
    with torch.no_grad():
        encoded = model.backbone.encode_text(batch.choices.flatten(0, 1))
        for j in range(3):
            question = model.backbone.encode(replace(batch, words=batch.choices[:, j])).question
            torch.testing.assert_close(encoded.unflatten(0, (3, 3))[:, j], question)


@of_every_pair
def test_permuting_the_candidates_permutes_the_logits(backbone, method):
    model, batch, order = make(backbone, method), random_batch(5, spec=CHOICE_SPEC), torch.tensor([2, 0, 1])
    batch.presence[:2, :, AUDIO] = False
    before = logits(model, batch)
    assert before.shape == (5, 3) and before.std(dim=1).min() > 0
    torch.testing.assert_close(logits(model, replace(batch, choices=batch.choices[:, order])), before[:, order])


@of_every_pair
def test_permuting_the_batch_permutes_the_logits(backbone, method):
    model, batch, order = make(backbone, method), random_batch(4, spec=CHOICE_SPEC), torch.tensor([3, 0, 2, 1])
    torch.testing.assert_close(logits(model, batch)[order], logits(model, batch.map(lambda t: t[order])))


@of_every_pair
def test_every_view_is_scored_and_trains_all(backbone, method):
    """Every view is scored and gradients reach every parameter."""
    model, batch = make(backbone, method).train(), random_batch(5, spec=CHOICE_SPEC)
    output = model(batch)
    assert all(view.shape == (5, 3) for view in output.logits.values())
    unweighted(model, batch).backward()
    trained = [(name, p.grad) for name, p in model.named_parameters() if p.requires_grad]
    assert [name for name, grad in trained if grad is None or not grad.any()] == []


def test_views_stacked_on_the_batch_bring_their_candidates():
    batch = random_batch(2, spec=CHOICE_SPEC)
    repeated = repeat_batch(batch, 3)
    for i in range(6):
        assert torch.equal(repeated.choices[i], batch.choices[i % 2]) and repeated.answer[i] == batch.answer[i % 2]
    assert repeat_batch(random_batch(2), 3).choices is None
