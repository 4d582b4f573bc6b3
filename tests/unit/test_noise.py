"""Noise that evaluation can repeat."""

import pytest
import torch

from models.layers import noise
from models.layers.noise import gaussian_like


@pytest.mark.parametrize("mode", [torch.enable_grad, torch.no_grad, torch.inference_mode])
def test_a_large_draw_is_the_draw_of_every_question(monkeypatch, mode):
    """Threads, the order of the questions and their number change nothing."""
    with mode():
        values, ids = torch.empty(5, 3, 7), torch.tensor([4, 0, 11, 4, 2])
        slowly = gaussian_like(values, ids, stream=6)
        monkeypatch.setattr(noise, "LARGE", 1)
        assert torch.equal(gaussian_like(values, ids, stream=6), slowly)
        assert torch.equal(gaussian_like(values[:2], ids[[2, 1]], stream=6), slowly[[2, 1]])
        by_hand = torch.empty(3, 7).normal_(generator=torch.Generator().manual_seed(11 * 1009 + 6))
        assert torch.equal(slowly[2], by_hand) and torch.equal(slowly[0], slowly[3])
        with pytest.raises(ValueError, match="shorter"):
            gaussian_like(values, ids[:2])
