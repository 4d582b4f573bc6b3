"""Simple Modality Alignment: both presets, their alignment terms by hand, and masks."""

import math

import pytest
import torch
from toy import SPEC, random_batch, without_dropout

from dataset.types import AUDIO, VISUAL
from models.backbones.modality_alignment import ModalityAlignment, divergence

PRESETS = ("slides", "agreement")


def backbone(preset: str = "slides") -> ModalityAlignment:
    torch.manual_seed(0)
    return ModalityAlignment(SPEC, preset=preset)


def test_the_divergence_by_hand():
    p, q = torch.tensor([[math.log(3.0), 0.0]]), torch.tensor([[0.0, 0.0]])     # (3/4, 1/4) and (1/2, 1/2)
    assert float(divergence(p, q)) == pytest.approx(0.75 * math.log(1.5) + 0.25 * math.log(0.5))
    assert float(divergence(q, p)) == pytest.approx(0.5 * math.log(2 / 3) + 0.5 * math.log(2))
    assert float(divergence(p, p + 7)) == pytest.approx(0, abs=1e-6)


def test_the_terms_of_the_slides_and_of_the_release():
    batch = random_batch(2)
    model = without_dropout(backbone()).train()
    features = model.encode(batch)
    visual = model.model.visual(features.visual.mean(dim=2))
    expected = torch.stack([divergence(features.audio[:, t], visual[:, t]) for t in range(SPEC.segments)]).mean(dim=0)
    torch.testing.assert_close(model.fuse(features).losses["agree"], expected)
    model = without_dropout(backbone("agreement")).train()
    features = model.encode(batch)
    fused = model.fuse(features)
    visual = model.model.visual(features.visual.mean(dim=2))
    cosines = torch.cosine_similarity(features.audio, visual, dim=-1).mean(dim=1)
    torch.testing.assert_close(fused.losses["align"], 0.5 - cosines)
    torch.testing.assert_close(fused.losses["agree"], divergence(*fused.summaries))


@pytest.mark.parametrize("preset", PRESETS)
def test_trained_terms_fall_and_count_whole_questions(preset):
    """The terms fall when they are trained and count whole questions only."""
    model, batch = without_dropout(backbone(preset)).train(), random_batch(6)
    optimiser = torch.optim.Adam(model.parameters(), lr=3e-3)
    totals = []
    for _ in range(40):
        losses = model.fuse(model.encode(batch)).losses
        total = sum(value.mean() for value in losses.values())
        optimiser.zero_grad()
        total.backward()
        optimiser.step()
        totals.append(float(total.detach()))
    assert totals[-1] < totals[0] - 0.5 * abs(totals[0])
    presence = batch.presence.clone()
    presence[0, :, AUDIO] = False
    presence[2, 1, VISUAL] = False
    for values in model.fuse(model.encode(batch).with_(presence=presence)).losses.values():
        assert (values != 0).tolist() == [False, True, False, True, True, True]


def test_each_branch_reads_its_own_modality():
    model, batch = backbone("agreement").eval(), random_batch(2)
    features = model.encode(batch)
    (heard, seen), (heard_then, seen_then) = (
        model.fuse(f).summaries for f in (features, features.with_(visual=features.visual * 2)))
    assert torch.equal(heard, heard_then) and not torch.allclose(seen, seen_then)


def test_the_pool_takes_the_larger_of_two_neighbouring_channels():
    model, batch = backbone("agreement").eval(), random_batch(2)
    fused = model.fuse(model.encode(batch))
    pairs = torch.cat(fused.summaries, dim=-1).unflatten(-1, (-1, 2))
    torch.testing.assert_close(fused.vector, model.model.classifier(pairs.amax(dim=-1)))


@pytest.mark.parametrize("preset", PRESETS)
def test_what_is_masked_is_as_if_cut_out(preset):
    model, batch = backbone(preset).eval(), random_batch(2)
    features = model.encode(batch)
    presence = batch.presence.clone()
    presence[:, 2:] = False
    masked = model.fuse(features.with_(presence=presence, filled=False)).vector
    cut = features.with_(audio=features.audio[:, :2], visual=features.visual[:, :2], presence=presence[:, :2])
    torch.testing.assert_close(masked, model.fuse(cut).vector)


def test_in_the_slides_one_modality_is_kept():
    """In the slides a position with one modality keeps the other."""
    model, batch = backbone().eval(), random_batch(2)
    features = model.encode(batch)
    presence = batch.presence.clone()
    presence[..., AUDIO] = False
    silent = features.with_(presence=presence, filled=False)
    louder, brighter = silent.with_(audio=features.audio + 9), silent.with_(visual=features.visual + 1)
    torch.testing.assert_close(model.fuse(silent).vector, model.fuse(louder).vector)
    assert not torch.allclose(model.fuse(silent).vector, model.fuse(brighter).vector)
