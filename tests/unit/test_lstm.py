"""LSTMs under autocast: in float32, whatever the rest computes in."""

import pytest
import torch
from torch import nn
from toy import SPEC, random_batch

from models import BACKBONES, resolve
from models.layers.question import QuestionLSTM, run_lstm


def test_an_lstm_computes_in_float32_under_autocast():
    torch.manual_seed(0)
    lstm, steps = nn.LSTM(8, 8, batch_first=True), torch.randn(3, 5, 8)
    expected, (hidden, cell) = lstm(steps)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        results = run_lstm(lstm, steps)
        rounded, _ = run_lstm(lstm, steps.bfloat16())
    assert torch.equal(results[0], expected) and results[0].dtype == rounded.dtype == torch.float32
    assert torch.equal(results[1][0], hidden) and torch.equal(results[1][1], cell)


def test_words_are_read_in_float32_under_autocast():
    """So that no CPU needs an LSTM in bfloat16; the linear layer behind it may round."""
    torch.manual_seed(0)
    reader, words = QuestionLSTM(11, 8), random_batch(3).words
    states, question = reader(words)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        states_then, question_then = reader(words)
    assert states_then.dtype == torch.float32 and torch.equal(states, states_then)
    torch.testing.assert_close(question_then.float(), question, atol=0.02, rtol=0.02)


@pytest.mark.parametrize("name", BACKBONES)
def test_every_lstm_of_a_backbone_gets_float32(name):
    """In training too, where the gradients are finite."""
    torch.manual_seed(0)
    model, given = resolve(BACKBONES[name])(SPEC), []
    for module in model.modules():
        if isinstance(module, nn.LSTM):
            module.register_forward_hook(lambda _, inputs, outputs: given.extend((inputs[0].dtype, outputs[0].dtype)))
    with torch.autocast("cpu", dtype=torch.bfloat16):
        fused = model.fuse(model.encode(random_batch(5)))
        loss = fused.vector.float().square().sum() + sum(value.sum() for value in fused.losses.values())
    loss.backward()
    assert set(given) <= {torch.float32} and bool(given) == (name != "pano_avqa")
    assert all(p.grad.isfinite().all() for p in model.parameters() if p.grad is not None)
