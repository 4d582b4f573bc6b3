"""The switches of Table 4, and that each module changes what is answered on."""

import pytest
import torch
from toy import SHAPE, random_features

from dataset.types import AUDIO, VISUAL
from models.features import blank_features
from models.methods.base import without_segments
from models.methods.modality_dropout import ModalityDropout
from models.methods.plain import Plain
from models.rmm_avr.method import RMMAVR


def method(rmm: bool = True, avr: bool = True, **options) -> RMMAVR:
    torch.manual_seed(0)
    return RMMAVR(SHAPE, rmm={"enabled": rmm, "slots": 5}, avr={"enabled": avr, "width": 8, "steps": 3}, **options)


def missing(modality: int, size: int = 3):
    presence = torch.ones(size, 4, 2, dtype=torch.bool)
    presence[..., modality] = False
    return blank_features(random_features(size), presence)


def test_both_off_is_the_plain_backbone():
    features = missing(AUDIO)
    ours, plain = method(False, False), Plain(SHAPE)
    for module in (ours, plain):
        assert list(module.views(random_features(3)).features) == ["complete"]
    assert torch.equal(ours.fill_in(features).audio, plain.fill_in(features).audio)


@pytest.mark.parametrize("modality", [AUDIO, VISUAL])
def test_every_switch_changes_the_completion(modality):
    features = missing(modality)
    completions = []
    for rmm, avr in ((False, False), (True, False), (False, True), (True, True)):
        completed = method(rmm, avr).eval().fill_in(features)
        completions.append(torch.cat([completed.audio.flatten(), completed.visual.flatten()]).detach())
    for i in range(4):
        assert not any(torch.allclose(completions[i], other) for other in completions[i + 1:])


def test_rmm_alone_leaves_the_present_modality_as_it_is():
    features = missing(AUDIO)
    completed = method(avr=False).eval().fill_in(features)
    assert torch.equal(completed.visual, features.visual) and completed.audio.abs().sum() > 0


@pytest.mark.parametrize("refine,same", [("both", False), ("missing_only", True)])
def test_which_side_of_the_pair_is_refined(refine, same):
    features = missing(AUDIO)
    completed = method(refine=refine).eval().fill_in(features)
    assert torch.equal(completed.visual, features.visual) == same


def test_the_views_of_equation_8():
    features = random_features(3)
    views = method().views(features)
    assert list(views.features) == ["complete", "audio_missing", "visual_missing"]
    assert set(views.losses) == {"rmmr", "ave"}
    assert torch.equal(views.features["complete"].visual, features.visual)


def test_only_the_segments_that_lack_something_are_completed():
    features = random_features(2)
    presence = torch.ones(2, 4, 2, dtype=torch.bool)
    presence[0, 1, AUDIO] = False
    blanked = blank_features(features, presence)
    completed = method().eval().fill_in(blanked)
    kept = presence.all(-1)
    assert torch.equal(completed.audio[kept], features.audio[kept])
    assert torch.equal(completed.visual[kept], features.visual[kept])
    assert not torch.equal(completed.audio[0, 1], blanked.audio[0, 1])


def test_sampled_dropout_draws_all_three_states():
    features = random_features(60)
    torch.manual_seed(0)
    view = ModalityDropout(SHAPE, views="sampled").views(features).features["sampled"]
    no_audio, no_visual = view.audio.flatten(1).eq(0).all(1), view.visual.flatten(1).eq(0).all(1)
    assert not (no_audio & no_visual).any()
    counts = [int(no_audio.sum()), int(no_visual.sum()), int((~no_audio & ~no_visual).sum())]
    assert min(counts) >= 10


def test_the_segment_view_takes_each_equally_often():
    """The segment view takes sound picture or nothing from each segment alike."""
    torch.manual_seed(0)
    presence = torch.ones(600, 10, 2, dtype=torch.bool)
    presence[0, 0, AUDIO] = False                                      # has only its picture, and keeps it
    reduced = without_segments(presence)
    assert not bool((reduced & ~presence).any()) and bool(reduced.any(dim=-1).all())
    shares = [float((~reduced[1:, :, m]).float().mean()) for m in (AUDIO, VISUAL)]
    assert shares == pytest.approx([1 / 3, 1 / 3], abs=0.02)
    assert float(reduced[1:].all(dim=1).any(dim=-1).float().mean()) < 0.1      # segments are drawn one by one


def test_the_segment_view_is_a_fourth_answer():
    """The segment view is a fourth answer on what the segments lack."""
    features = random_features(3)
    views = method(avr=False, views="segments").views(features).features
    assert list(views) == ["complete", "audio_missing", "visual_missing", "segments_missing"]
    mixed = views["segments_missing"]
    kept_audio = (mixed.audio == features.audio).all(dim=-1)           # (B, T)
    kept_visual = (mixed.visual == features.visual).flatten(2).all(dim=-1)
    assert bool((kept_audio | kept_visual).all()) and not bool((kept_audio & kept_visual).all())
