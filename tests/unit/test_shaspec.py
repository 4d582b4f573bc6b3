"""ShaSpec: what stands in for an absent modality, its losses by hand, what training does."""

import math

import pytest
import torch
from torch import nn
from toy import SHAPE, random_features

from dataset.types import AUDIO, VISUAL
from models.features import Features, FeatureShape
from models.methods.base import simulate
from models.methods.modality_dropout import ModalityDropout
from models.methods.shaspec import ShaSpec


def all_present(size: int) -> torch.Tensor:
    return torch.ones(size, SHAPE.segments, 2, dtype=torch.bool)


def by_hand() -> tuple[ShaSpec, Features]:
    """D = 2, one segment, two tokens. All encoders are the ReLU, W[r; s] = s / 2, the domain logits
    are s itself; no norm.
    """
    method = ShaSpec(FeatureShape(1, (1, 2), 2))
    method.norm_audio = method.norm_visual = nn.Identity()
    identity = torch.eye(2)
    for encoder in (method.shared, method.specific_audio, method.specific_visual):
        for layer in (encoder[0], encoder[2]):
            layer.weight.data, layer.bias.data = identity.clone(), torch.zeros(2)
    method.fusion.weight.data, method.fusion.bias.data = torch.cat([0 * identity, identity / 2], dim=1), torch.zeros(2)
    method.domain.weight.data, method.domain.bias.data = identity.clone(), torch.zeros(2)
    features = random_features(1, shape=FeatureShape(1, (1, 2), 2)).with_(
        audio=torch.tensor([[[1.0, 2.0]]]), visual=torch.tensor([[[[3.0, 0.0], [1.0, -5.0]]]])
    )
    return method, features


def test_losses_and_features_against_numbers_worked_by_hand():
    method, features = by_hand()
    views = method.views(features)
    # r_a = (1, 2), mean r_v = (2, 0): (|1 - 2| + |2 - 0|) / 2
    assert views.losses["align"].item() == pytest.approx(1.5)
    # audio: logits (1, 2), class 0; visual: logits (2, 0), class 1
    expected = (math.log(1 + math.e) + math.log(1 + math.e ** 2)) / 2
    assert views.losses["domain"].item() == pytest.approx(expected, rel=1e-6)
    complete, no_audio, no_visual = views.features.values()
    assert complete.audio.tolist() == [[[1.5, 3.0]]] and complete.visual.tolist() == [[[[4.5, 0.0], [1.5, 0.0]]]]
    assert no_audio.audio.tolist() == [[[2.0, 0.0]]] and torch.equal(no_audio.visual, complete.visual)
    assert no_visual.visual.tolist() == [[[[1.0, 2.0], [1.0, 2.0]]]] and torch.equal(no_visual.audio, complete.audio)


def test_absent_entries_enter_no_loss():
    torch.manual_seed(0)
    method, features, presence = ShaSpec(SHAPE), random_features(4), all_present(4)
    presence[0, :, AUDIO] = False
    presence[1, 2, VISUAL] = False
    presence[2] = False
    expected = method.views(features.with_(presence=presence)).losses
    for value in (float("nan"), 1e4):
        audio, visual = features.audio.clone(), features.visual.clone()
        audio[~presence[..., AUDIO]], visual[~presence[..., VISUAL]] = value, value
        assert method.views(features.with_(audio=audio, visual=visual, presence=presence)).losses == expected
    # nor does what is left of a segment that lacks the other modality
    alone = features.visual.clone()
    alone[0] += 3
    assert method.views(features.with_(visual=alone, presence=presence)).losses == expected


def test_without_a_whole_segment_both_losses_are_zero():
    presence = all_present(2)
    presence[..., AUDIO] = False
    losses = ShaSpec(SHAPE).views(random_features(2).with_(presence=presence)).losses
    assert losses["align"] == 0 and losses["domain"] == 0


def test_the_specific_branch_matters_where_present():
    """The specific branch matters where a modality is present and only there."""
    torch.manual_seed(0)
    method, features, presence = ShaSpec(SHAPE), random_features(2), all_present(2)
    presence[0, :, AUDIO] = False
    before = method.fill_in(features.with_(presence=presence))
    nn.init.zeros_(method.specific_audio[2].weight)
    nn.init.zeros_(method.specific_visual[2].weight)
    after = method.fill_in(features.with_(presence=presence))
    assert torch.equal(before.audio[0], after.audio[0])
    assert not torch.allclose(before.audio[1], after.audio[1]) and not torch.allclose(before.visual, after.visual)


def test_negatives_pass_the_fusion_of_the_visual_stream():
    torch.manual_seed(0)
    method, features = ShaSpec(SHAPE), random_features(3)
    view = method.views(features.with_(negative=features.visual)).features["complete"]
    torch.testing.assert_close(view.negative, view.visual)


@pytest.mark.parametrize("mode,complete", [("sampled", 1 / 3), ("keep_count", 1 / 2)])
def test_simulated_states_are_drawn_as_often_as_they_should(mode, complete):
    torch.manual_seed(0)
    state = simulate(torch.ones(4000, 2, 2, dtype=torch.bool), mode)["sampled"].float().mean(dim=(0, 1))
    torch.testing.assert_close(state, torch.full((2,), (1 + complete) / 2), atol=0.03, rtol=0)


@pytest.mark.parametrize("name,kept", [("audio_missing", [0, 1]), ("visual_missing", [1, 0])])
def test_a_specialist_answers_its_own_view_alone(name, kept):
    """A segment that has one modality only keeps it, as in the other modes."""
    presence = torch.tensor([[[True, True], [True, False], [False, True]]])
    views = ModalityDropout(SHAPE, views=name).views(random_features(1))
    assert list(views.features) == [name]
    assert simulate(presence, name)[name].tolist() == [[[bool(kept[0]), bool(kept[1])], [True, False], [False, True]]]
    assert views.features[name].audio.any() == kept[0] and views.features[name].visual.any() == kept[1]


@pytest.mark.parametrize("align_weight,alike", [(0.1, True), (0.0, False)])
def test_training_makes_the_shared_features_alike(align_weight, alike):
    """One cause is seen and heard in two ways; a linear readout asks for it in all three views."""
    torch.manual_seed(0)
    size, T, N, D = 64, SHAPE.segments, SHAPE.tokens, SHAPE.channels
    cause = torch.randn(size, T, 4)
    audio = cause @ torch.randn(4, D)
    visual = (cause @ torch.randn(4, D)).unsqueeze(2) + 0.1 * torch.randn(size, T, N, D)
    features = random_features(size).with_(audio=audio, visual=visual)
    method, readout = ShaSpec(SHAPE), nn.Linear(2 * D, 4)
    weights = method.loss_weights | {"align": align_weight}
    optimiser = torch.optim.Adam([*method.parameters(), *readout.parameters()], lr=3e-3)
    before = distances(method, features)
    for _ in range(300):
        views = method.views(features)
        answers = [readout(torch.cat([f.audio, f.visual.mean(dim=2)], dim=-1)) for f in views.features.values()]
        loss = sum((a - cause).square().mean() for a in answers)
        loss = loss + sum(weights[name] * value for name, value in views.losses.items())
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
    shared, specific = distances(method, features)
    assert (shared < 0.7 * before[0]) == alike and specific > before[1]
    assert views.losses["domain"] < 0.1


@torch.no_grad()
def distances(method: ShaSpec, features: Features) -> list[float]:
    """Relative distance of the two modalities' shared, and of their specific, features."""
    e = method.encode(features)
    pairs = ((e.shared_audio, e.shared_visual), (e.specific_audio, e.specific_visual))
    return [float((a - v).norm() / (a.norm() + v.norm())) for a, v in pairs]
