"""ActionMAE: its loss by hand, what it sees and replaces, and that it learns to predict."""

import pytest
import torch
from torch import nn
from toy import SHAPE, random_features

from dataset.types import AUDIO, VISUAL
from models.errors import OptionError
from models.features import Features, FeatureShape
from models.methods.actionmae import ActionMAE, sinusoids, tokens


def method(shape: FeatureShape = SHAPE) -> ActionMAE:
    torch.manual_seed(0)
    return ActionMAE(shape)


def all_present(size: int) -> torch.Tensor:
    return torch.ones(size, SHAPE.segments, 2, dtype=torch.bool)


def missing(modality: int, size: int) -> torch.Tensor:
    presence = all_present(size)
    presence[..., modality] = False
    return presence


def test_the_loss_against_numbers_worked_by_hand():
    """Audio (1, 4), visual the mean of (3, 0) and (5, -2), which is (4, -1); every prediction is
    (1, 0), so the loss is (0 + 16 + 9 + 1) / 4. Four times each, for eight heads.
    """
    shape = FeatureShape(1, (1, 2), 8)
    mae = method(shape)
    nn.init.zeros_(mae.head.weight)
    mae.head.bias.data = torch.tensor([1.0, 0.0] * 4)
    features = random_features(1, shape=shape).with_(
        audio=torch.tensor([[[1.0, 4.0] * 4]]), visual=torch.tensor([[[[3.0, 0.0] * 4, [5.0, -2.0] * 4]]])
    )
    views = mae.views(features)
    assert views.losses["reconstruction"].item() == pytest.approx(6.5, abs=1e-5)
    assert views.features["audio_missing"].audio.tolist() == [[[1.0, 0.0] * 4]]
    assert views.features["visual_missing"].visual.tolist() == [[[[1.0, 0.0] * 4, [1.0, 0.0] * 4]]]


def test_absent_entries_enter_no_loss():
    mae, features, presence = method(), random_features(4), all_present(4)
    presence[0, :, AUDIO] = False
    presence[1, 2, VISUAL] = False
    presence[2] = False
    expected = mae.views(features.with_(presence=presence)).losses["reconstruction"]
    audio, visual = features.audio.clone(), features.visual.clone()
    audio[~presence[..., AUDIO]], visual[~presence[..., VISUAL]] = 1e4, -1e4
    poisoned = features.with_(audio=audio, visual=visual, presence=presence)
    torch.testing.assert_close(mae.views(poisoned).losses["reconstruction"], expected)
    present = features.with_(audio=features.audio + presence[..., AUDIO, None], presence=presence)
    assert not torch.allclose(mae.views(present).losses["reconstruction"], expected)


def test_nothing_removed_is_no_loss():
    assert method().views(random_features(2).with_(presence=missing(AUDIO, 2))).losses["reconstruction"] == 0


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


def test_only_absent_tokens_are_replaced():
    features = random_features(3)
    completed = method().eval().fill_in(features.with_(presence=missing(AUDIO, 3)))
    assert torch.equal(completed.visual, features.visual)
    assert not torch.equal(completed.audio, features.audio)


def test_the_loss_does_not_train_what_encodes_the_target():
    target = tokens(random_features(1)).requires_grad_()
    assert not method().loss(torch.zeros_like(target), target, ~missing(VISUAL, 1)).requires_grad


def test_channels_that_the_heads_do_not_divide_are_named():
    with pytest.raises(OptionError, match="8 heads, which must divide the 12 channels"):
        method(FeatureShape(1, (1, 2), 12))


def test_reconstruction_beats_the_mean():
    """Visual is a fixed linear function of its segment's audio, which is always new."""
    mae, mixing = method(), torch.randn(SHAPE.channels, SHAPE.channels) / SHAPE.channels ** 0.5
    optimiser = torch.optim.Adam(mae.parameters(), lr=3e-3)
    for step in range(300):
        loss = mae.views(predictable(32, step, mixing)).losses["reconstruction"]
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
    unseen = predictable(200, 1000, mixing)
    with torch.no_grad():
        predicted = mae.eval().fill_in(unseen.with_(presence=missing(VISUAL, 200))).visual
    error = (predicted - unseen.visual).square().mean()
    of_mean = (unseen.visual - unseen.visual.mean(dim=(0, 1, 2))).square().mean()
    assert error < 0.5 * of_mean


def predictable(size: int, seed: int, mixing: torch.Tensor) -> Features:
    features = random_features(size, seed)
    visual = (features.audio @ mixing).unsqueeze(2)                    # (B, T, 1, D)
    return features.with_(visual=visual.expand_as(features.visual))
