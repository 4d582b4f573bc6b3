"""The law of `Fused.attention` over backbones and kinds of features, in every case of absence."""

import pytest
import torch
from contracts.pairs import CASES, KINDS, PARAMS, build, poison, with_absence
from toy import SPEC, completed

from models.avqa import repeat_batch

GIVING = ("avst", "avsd", "mcd", "pano_avqa", "pstp_net", "modality_alignment", "modality_alignment preset=agreement")
SHAPES = {"audio": (SPEC.segments,), "visual": (SPEC.segments,), "space": (SPEC.segments, SPEC.tokens)}


@pytest.fixture(scope="module", params=[p for p in PARAMS if p.values[0][1].startswith(KINDS)])
def pair(request):
    return request.param, build(request.param).eval()


@torch.no_grad()
def test_attention_is_there_when_asked_and_costs_no_bit(pair):
    """Shares that sum to one, or zeros; nothing unasked; the same logits either way."""
    (backbone, method), model = pair
    for case in CASES:
        batch = poison(with_absence(case), float("nan"))
        features = completed(model, model.encode(batch))
        repeated = repeat_batch(batch, features.samples)
        unasked, answered = model.answer(features, repeated, None)
        asked, again = model.answer(features.with_(wants_attention=True), repeated, None)
        assert unasked.attention is None, case
        assert torch.equal(answered.logits, again.logits), case
        assert bool(asked.attention) == (backbone in GIVING), case
        if not asked.attention:
            continue
        assert set(asked.attention) <= set(SHAPES), case
        assert backbone != "avst" or set(asked.attention) == set(SHAPES), case
        for name, weights in asked.attention.items():
            assert weights.shape == (5 * features.samples, *SHAPES[name]), f"{case}: {name}"
            assert bool((weights >= 0).all()), f"{case}: {name}"
            total = weights.sum(dim=-1)
            assert bool(((total - 1).abs() < 1e-5).logical_or(total == 0).all()), f"{case}: {name}"
            if features.filled or case == "complete":
                assert bool((total > 0).all()), f"{case}: {name}"


@torch.no_grad()
def test_what_must_not_be_read_has_no_share():
    """DrFuse lets nothing stand in for what is absent."""
    for backbone in ("avst", "avsd", "mcd", "pano_avqa"):
        model = build((backbone, "drfuse")).eval()
        batch = poison(with_absence("segments"), 0.0)
        features = completed(model, model.encode(batch)).with_(wants_attention=True)
        attention = model.backbone.fuse(features).attention
        assert bool((attention["audio"][:, 1] == 0).all()), backbone
        for name in {"visual", "space"} & set(attention):
            assert bool((attention[name][:, 2:] == 0).all()), f"{backbone}: {name}"


@torch.no_grad()
def test_attention_is_that_of_the_module():
    """Against torch's own weights, without a mask and without extra tokens."""
    model = build(("avst", "plain")).eval()
    features = model.encode(with_absence("complete")).with_(wants_attention=True)
    block = model.backbone.temporal_audio.attention
    wanted = block(features.question.unsqueeze(1), features.audio, features.audio)[1].squeeze(1)
    torch.testing.assert_close(model.backbone.fuse(features).attention["audio"], wanted)
