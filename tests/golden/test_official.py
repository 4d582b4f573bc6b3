"""AVST with `released` gives the official network's numbers for its weights, inputs and noise."""

import json
from dataclasses import replace
from unittest import mock

import pytest
import torch
from golden.official import (
    MISSING,
    SLOTS,
    SPEC,
    STEPS,
    STORED,
    batch,
    drawn_steps,
    head_of,
    noise,
    pseudo_random,
    weight,
)
from toy import named

from dataset.types import AUDIO, VISUAL
from engine.config import compose
from models import build_model
from models.objective import total_loss
from models.rmm_avr.released import NoisedReal
from scripts.study.convert import BACKBONE, METHOD, convert

EXPECTED = json.loads(STORED.read_text())


@pytest.fixture(scope="module")
def model():
    config = compose("configs/released.yaml", ["dataset=music_avqa", f"rmm.slots={SLOTS}", f"avr.steps={STEPS}",
                                               "backbone.dropout=0", "rmm.question_pairing=time_major"])
    model = build_model(SPEC, config["backbone"], config["method"])
    official = {name: weight(name, shape) for name, shape in EXPECTED["entries"].items()}
    state, unused = convert(official, model.state_dict())
    assert unused == []
    model.load_state_dict(state)
    return model


def drawing(names: list[str]):
    """`torch.randn_like` gives the official code's noise; of sequences, `names` in their order."""
    def randn_like(values):
        if values.dim() == 4:                                          # (B, T, N, D), added to the real picture
            return pseudo_random("noise real visual", *values.shape[:2], 512, *SPEC.grid).flatten(3).transpose(2, 3)
        if values.shape[1] == SPEC.segments:                           # (B, T, D), added to the real sound
            return pseudo_random("noise real audio", *values.shape)
        sequences = noise(names.pop(0)).flatten(2).transpose(1, 2)     # (B*T, N, D), of one view
        return sequences.repeat(values.numel() // sequences.numel(), 1, 1).reshape(values.shape)
    return mock.patch("torch.randn_like", randn_like)


def reverse() -> list[str]:
    return [f"reverse {step}" for step in range(STEPS - 1, 0, -1)]


def assert_close(values, expected):
    torch.testing.assert_close(torch.tensor(values), torch.tensor(expected), rtol=1e-3, atol=1e-4)


def test_a_training_pass_is_the_official_one(model):
    """Logits of the three views, every loss term, and the gradients of the weighted total."""
    model.train().zero_grad()
    with drawing(["training", *reverse()]), mock.patch("torch.randint", lambda *_, **__: drawn_steps()):
        output = model(batch())
    total_loss(output.terms, model.loss_weights).backward()
    for view, logits in EXPECTED["logits"].items():
        assert_close(head_of(output.logits[view]), logits)
    assert {name: float(value.detach()) for name, value in named(output.terms).items()} == pytest.approx(
        EXPECTED["terms"], rel=1e-4)
    gradients = {name: parameter.grad.norm().item() for name, parameter in model.named_parameters()
                 if parameter.grad is not None}
    for name, norm in EXPECTED["gradients"].items():
        prefix, own = next((p, own) for p, own in (BACKBONE | METHOD).items() if name.startswith(p))
        assert gradients[own + name[len(prefix):]] == pytest.approx(norm, rel=1e-3), name


@pytest.mark.parametrize("missing", MISSING)
def test_an_evaluation_is_the_official_one(model, missing):
    """The modality called missing is the real one plus noise from the global generator."""
    given = replace(batch(), question_id=None)
    state = given.presence.clone()
    state[..., AUDIO if missing == "audio" else VISUAL] = False
    with drawing(reverse()):
        output = NoisedReal(model.eval(), MISSING[missing])(replace(given, presence=state))
    assert_close(head_of(output.logits["complete"].detach()), EXPECTED["evaluation"][missing])
