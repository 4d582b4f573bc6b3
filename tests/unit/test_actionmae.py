"""ActionMAE: its loss by hand, what it sees and replaces, and that it learns to predict."""

import pytest
import torch
from torch import nn
from toy import SHAPE, random_features

from dataset.types import AUDIO, VISUAL
from models.errors import OptionError
from models.features import Features, FeatureShape
from models.methods.actionmae import ActionMAE, sinusoids, tokens


def method(shape: FeatureShape = SHAPE, **options) -> ActionMAE:
    torch.manual_seed(0)
    return ActionMAE(shape, **{"heads": 2, "layers": 1, **options})


def all_present(size: int) -> torch.Tensor:
    return torch.ones(size, SHAPE.segments, 2, dtype=torch.bool)


def missing(modality: int, size: int) -> torch.Tensor:
    presence = all_present(size)
    presence[..., modality] = False
    return presence


# audio (1, 4) and visual, the mean of (3, 0) and (5, -2), which is (4, -1); every prediction is (1,
# 0).
# as they are: (0 + 16 + 9 + 1) / 4. standardised: (-1, 1) and (1, -1): (4 + 1 + 0 + 1) / 4.
@pytest.mark.parametrize("norm_target,expected", [(False, 6.5), (True, 1.5)])
def test_the_loss_against_numbers_worked_by_hand(norm_target, expected):
    shape = FeatureShape(1, (1, 2), 2)
    mae = method(shape, norm_target=norm_target)
    nn.init.zeros_(mae.head.weight)
    mae.head.bias.data = torch.tensor([1.0, 0.0])
    features = random_features(1, shape=shape).with_(
        audio=torch.tensor([[[1.0, 4.0]]]), visual=torch.tensor([[[[3.0, 0.0], [5.0, -2.0]]]])
    )
    views = mae.views(features, torch.ones(1, 1, 2, dtype=torch.bool))
    assert views.losses["reconstruction"].item() == pytest.approx(expected, abs=1e-5)
    assert views.features["audio_missing"].audio.tolist() == [[[1.0, 0.0]]]
    assert views.features["visual_missing"].visual.tolist() == [[[[1.0, 0.0], [1.0, 0.0]]]]


def test_absent_entries_enter_no_loss():
    mae, features, presence = method(), random_features(4), all_present(4)
    presence[0, :, AUDIO] = False
    presence[1, 2, VISUAL] = False
    presence[2] = False
    expected = mae.views(features, presence).losses["reconstruction"]
    audio, visual = features.audio.clone(), features.visual.clone()
    audio[~presence[..., AUDIO]], visual[~presence[..., VISUAL]] = 1e4, -1e4
    loss = mae.views(features.with_(audio=audio, visual=visual), presence).losses["reconstruction"]
    torch.testing.assert_close(loss, expected)
    present = features.with_(audio=features.audio + presence[..., AUDIO, None])
    assert not torch.allclose(mae.views(present, presence).losses["reconstruction"], expected)


@pytest.mark.parametrize("norm_target", [False, True])
def test_nothing_removed_is_no_loss(norm_target):
    presence = missing(AUDIO, 2)
    assert method(norm_target=norm_target).views(random_features(2), presence).losses["reconstruction"] == 0


@pytest.mark.parametrize("modality", [AUDIO, VISUAL])
def test_a_prediction_depends_only_on_what_is_kept(modality):
    """A prediction depends on what is kept and not on what is removed."""
    mae, presence = method().eval(), missing(modality, 3)
    base = tokens(random_features(3))
    expected = mae.predict(base, presence)
    removed, kept = base.clone(), base.clone()
    removed[..., modality, :] += torch.randn(3, SHAPE.segments, SHAPE.channels)
    kept[..., 1 - modality, :] += torch.randn(3, SHAPE.segments, SHAPE.channels)
    torch.testing.assert_close(mae.predict(removed, presence), expected)
    assert not torch.allclose(mae.predict(kept, presence), expected, atol=1e-4)


def test_mask_tokens_know_their_modality_and_time():
    predicted = method().eval().predict(tokens(random_features(1)), torch.zeros(1, SHAPE.segments, 2, dtype=torch.bool))
    rows = predicted.flatten(0, 2)                                     # (2T, D)
    assert (torch.pdist(rows) > 1e-4).all()
    assert (torch.pdist(sinusoids(10, 7)) > 1e-2).all()


@pytest.mark.parametrize("replace,same", [("absent", True), ("all", False)])
def test_which_tokens_are_replaced(replace, same):
    features, presence = random_features(3), missing(AUDIO, 3)
    completed = method(replace=replace).eval().complete(features, presence)
    assert torch.equal(completed.visual, features.visual) == same
    assert not torch.equal(completed.audio, features.audio)
    if not same:
        assert torch.equal(completed.visual, completed.visual[:, :, :1].expand_as(completed.visual))


@pytest.mark.parametrize("detach", [True, False])
def test_whether_the_loss_trains_what_encodes_the_target(detach):
    target = tokens(random_features(1)).requires_grad_()
    loss = method(detach_target=detach).loss(torch.zeros_like(target), target, ~missing(VISUAL, 1))
    assert loss.requires_grad != detach


def test_heads_that_do_not_divide_the_channels_are_named():
    with pytest.raises(OptionError, match="method.heads=3"):
        method(heads=3)


def test_reconstruction_beats_the_mean():
    """Visual is a fixed linear function of its segment's audio, which is always new."""
    mae, mixing = method(), torch.randn(SHAPE.channels, SHAPE.channels) / SHAPE.channels ** 0.5
    optimiser = torch.optim.Adam(mae.parameters(), lr=3e-3)
    for step in range(300):
        loss = mae.views(predictable(32, step, mixing), all_present(32)).losses["reconstruction"]
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
    unseen = predictable(200, 1000, mixing)
    with torch.no_grad():
        predicted = mae.eval().complete(unseen, missing(VISUAL, 200)).visual
    error = (predicted - unseen.visual).square().mean()
    of_mean = (unseen.visual - unseen.visual.mean(dim=(0, 1, 2))).square().mean()
    assert error < 0.5 * of_mean


def predictable(size: int, seed: int, mixing: torch.Tensor) -> Features:
    features = random_features(size, seed)
    visual = (features.audio @ mixing).unsqueeze(2)                    # (B, T, 1, D)
    return features.with_(visual=visual.expand_as(features.visual))
