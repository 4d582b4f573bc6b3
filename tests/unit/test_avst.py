"""AVST against its equations written out token by token, and its negatives."""

import pytest
import torch
from torch.nn import functional as F
from toy import SPEC, random_batch

from models.backbones.avst import AVST, SpatialGrounding, TemporalGrounding, other_video


def test_spatial_grounding_equals_a_loop_over_tokens():
    torch.manual_seed(0)
    grounding = SpatialGrounding(8, temperature=0.7)
    audio, visual = torch.randn(2, 3, 8), torch.rand(2, 3, 5, 8)
    result = grounding(audio, visual)
    for b in range(2):
        for t in range(3):
            unit = [token / token.norm() for token in visual[b, t]]
            scores = torch.stack([u @ audio[b, t] / audio[b, t].norm() for u in unit]) / 0.7
            weights = scores.exp() / scores.exp().sum()
            grounded = sum(w * u for w, u in zip(weights, unit, strict=True))
            expected = grounding.project(torch.tanh(torch.cat([visual[b, t].mean(0), grounded])))
            torch.testing.assert_close(result[b, t], expected, atol=1e-5, rtol=1e-5)


def test_grounding_of_a_blank_map_is_finite():
    """Spatial grounding of a blank map is finite with finite gradients."""
    grounding = SpatialGrounding(8, temperature=1.0)
    audio, visual = torch.zeros(1, 2, 8, requires_grad=True), torch.zeros(1, 2, 5, 8, requires_grad=True)
    grounding(audio, visual).sum().backward()
    assert torch.isfinite(audio.grad).all() and torch.isfinite(visual.grad).all()


def test_temporal_grounding_ignores_the_order_of_segments():
    torch.manual_seed(0)
    grounding = TemporalGrounding(8, heads=2, dropout=0.0)
    question, segments = torch.randn(2, 8), torch.randn(2, 4, 8)
    torch.testing.assert_close(grounding(question, segments), grounding(question, segments.flip(1)))


@pytest.mark.parametrize("videos", [[0, 0, 1, 2], [3, 3, 3, 3], [0, 1, 0, 1], [5]])
def test_a_negative_never_shows_the_same_video(videos):
    video = torch.tensor(videos)
    presence = torch.ones(len(videos), 4, 2, dtype=torch.bool)
    other, valid = other_video(video, presence)
    for i, video_i in enumerate(videos):
        assert bool(valid[i]) == any(v != video_i for v in videos)
        assert not valid[i] or videos[int(other[i])] != video_i


def test_a_blank_map_is_no_negative():
    presence = torch.ones(3, 4, 2, dtype=torch.bool)
    presence[1, :, 1] = False
    other, valid = other_video(torch.tensor([0, 1, 2]), presence)
    assert valid.tolist() == [True, False, True] and 1 not in other[valid].tolist()


def test_match_loss_is_cross_entropy_over_both_kinds_of_segments():
    """Match loss is cross entropy over positive and negative segments."""
    torch.manual_seed(0)
    model, batch = AVST(SPEC).train(), random_batch(3)
    features = model.encode(batch)
    grounded = model.spatial(features.audio, features.visual)
    loss = model.match_loss(features, grounded)
    for b in range(3):
        other = model.spatial(features.audio[b:b + 1], features.visual[(b + 1) % 3].unsqueeze(0))[0]
        terms = []
        for t in range(4):
            for label, y in ((1, grounded[b, t]), (0, other[t])):
                logits = model.match(torch.cat([features.audio[b, t], y]))
                terms.append(F.cross_entropy(logits[None], torch.tensor([label])))
        torch.testing.assert_close(loss[b], torch.stack(terms).mean())


def test_match_views_leaves_out_what_a_method_completed():
    losses, batch = [], random_batch(3)
    for views in ("all", "complete"):
        torch.manual_seed(0)
        model = AVST(SPEC, match_views=views).train()
        features = model.encode(batch)
        presence = features.presence.clone()
        presence[1, 2, 0] = False                                    # the second question's sound, for one segment
        grounded = model.spatial(features.audio, features.visual)
        losses.append(model.match_loss(features.with_(presence=presence), grounded))
    assert float(losses[0][1]) > 0 and float(losses[1][1]) == 0
    assert torch.equal(losses[0][[0, 2]], losses[1][[0, 2]])


def test_questions_without_a_negative_add_nothing():
    model, batch = AVST(SPEC).train(), random_batch(2)
    batch.video[:] = 0
    assert model.fuse(model.encode(batch)).losses["match"].tolist() == [0.0, 0.0]


def test_parameter_count_at_the_published_size():
    from dataset.types import DataSpec
    spec = DataSpec(segments=10, audio_channels=128, visual_channels=512, grid=(14, 14), words=14, vocabulary=93,
                    answers=42)
    head = 512 * 42 + 42
    assert sum(p.numel() for p in AVST(spec).parameters()) + head == 7_916_716
