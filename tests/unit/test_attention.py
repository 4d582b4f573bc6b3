"""Attention over masked streams with extra tokens, against the same attention over what is left."""

import torch
from torch import nn
from toy import SPEC, random_batch

from dataset.types import AUDIO, VISUAL
from models.backbones.avst import AVST
from models.layers.attention import attend, masked_mean


def module() -> nn.MultiheadAttention:
    torch.manual_seed(0)
    return nn.MultiheadAttention(8, 2, batch_first=True).eval()


def test_masked_entries_are_as_if_they_were_not_there():
    attention, query, tokens = module(), torch.randn(1, 3, 8), torch.randn(1, 5, 8)
    mask = torch.tensor([[True, False, True, True, False]])
    attended, weights = attend(attention, query, tokens, mask, need_weights=True)
    expected, expected_weights = attention(query, tokens[:, mask[0]], tokens[:, mask[0]])
    torch.testing.assert_close(attended, expected)
    torch.testing.assert_close(weights[..., mask[0]], expected_weights)
    assert not weights[..., ~mask[0]].any()


def test_extra_tokens_are_read_whatever_the_mask():
    """Extra tokens are read as keys and values whatever the mask."""
    attention, query, tokens = module(), torch.randn(2, 3, 8), torch.randn(2, 4, 8)
    extra = torch.randn(2, 2, 8), torch.randn(2, 2, 8)
    mask = torch.tensor([[True] * 4, [False] * 4])
    attended, weights = attend(attention, query, tokens, mask, extra, need_weights=True)
    first = attention(query[:1], torch.cat([extra[0][:1], tokens[:1]], 1), torch.cat([extra[1][:1], tokens[:1]], 1))
    second = attention(query[1:], extra[0][1:], extra[1][1:])
    torch.testing.assert_close(attended, torch.cat([first[0], second[0]]))
    torch.testing.assert_close(weights[:1], first[1][..., 2:])
    assert not weights[1].any()


def test_a_stream_without_entries_gives_zeros():
    """A stream without any entry gives zeros and finite gradients."""
    attention, tokens = module(), torch.randn(2, 4, 8, requires_grad=True)
    mask = torch.tensor([[True] * 4, [False] * 4])
    attended, _ = attend(attention, torch.randn(2, 1, 8), tokens, mask)
    attended.sum().backward()
    assert attended[0].any() and not attended[1].any()
    assert torch.isfinite(tokens.grad).all() and not tokens.grad[1].any()


def test_the_mean_runs_over_what_is_readable():
    values = torch.tensor([[[1.0], [3.0], [8.0]], [[5.0], [6.0], [7.0]]])
    mask = torch.tensor([[True, True, False], [False, False, False]])
    assert masked_mean(values, mask).flatten().tolist() == [2.0, 0.0]
    assert masked_mean(values, None).flatten().tolist() == [4.0, 6.0]


def test_a_backbone_reads_nothing_of_a_masked_stream():
    torch.manual_seed(0)
    backbone, batch = AVST(SPEC).eval(), random_batch(3)
    features = backbone.encode(batch)
    presence = batch.presence.clone()
    presence[:, :, AUDIO] = False
    presence[:, 2:, VISUAL] = False
    masked = features.with_(presence=presence, filled=False)
    changed = masked.with_(visual=features.visual.clone())
    changed.visual[:, 2:] = 7.0
    torch.testing.assert_close(backbone.fuse(masked).vector, backbone.fuse(changed).vector)
    assert not torch.allclose(backbone.fuse(masked).vector, backbone.fuse(features).vector)
