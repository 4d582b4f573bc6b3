"""The head over candidates: its formula, and how it reads them."""

from dataclasses import replace

import pytest
import torch
from toy import SPEC, random_batch

from models import BACKBONES, build_model
from models.avqa import repeat_batch
from models.heads import MultipleChoice, OpenVocabulary

CHOICE_SPEC = replace(SPEC, choices=3, answers=0)


def make(backbone: str, spec=CHOICE_SPEC):
    torch.manual_seed(0)
    return build_model(spec, {"name": backbone}, {"name": "plain"}).eval()


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
    assert isinstance(make("avst").head, MultipleChoice)
    assert isinstance(make("avst", SPEC).head, OpenVocabulary)


@pytest.mark.parametrize("backbone", BACKBONES)
def test_candidates_are_encoded_as_questions_are(backbone):
    model, batch = make(backbone), random_batch(3, spec=CHOICE_SPEC)
    with torch.no_grad():
        encoded = model.backbone.encode_text(batch.choices.flatten(0, 1))
        for j in range(3):
            question = model.backbone.encode(replace(batch, words=batch.choices[:, j])).question
            torch.testing.assert_close(encoded.unflatten(0, (3, 3))[:, j], question)


def test_views_stacked_on_the_batch_bring_their_candidates():
    batch = random_batch(2, spec=CHOICE_SPEC)
    repeated = repeat_batch(batch, 3)
    for i in range(6):
        assert torch.equal(repeated.choices[i], batch.choices[i % 2]) and repeated.answer[i] == batch.answer[i % 2]
    assert repeat_batch(random_batch(2), 3).choices is None
