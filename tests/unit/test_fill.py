"""What stands in for an absent modality: the running mean of each, from its own first batch on."""

import torch
from toy import SHAPE, random_features

from dataset.types import AUDIO
from models.features import blank_features
from models.layers.fill import Fill


def test_a_modality_counts_as_seen_only_when_it_was():
    """Sound comes with the second batch: its mean is that of this batch, not a hundredth of the way
    there from zero.
    """
    fill, features = Fill(SHAPE, "mean"), random_features(3)
    silent = features.presence.clone()
    silent[..., AUDIO] = False
    fill.observe(blank_features(features, silent))
    assert fill.seen.tolist() == [False, True]
    fill.observe(features)
    torch.testing.assert_close(fill.mean_audio, features.audio.mean(dim=(0, 1)))
    assert fill.seen.tolist() == [True, True]


def test_the_mean_is_that_of_all_processes(monkeypatch):
    """The other process sees twice the same sounds, so their joint mean is half as large again."""
    fill, features = Fill(SHAPE, "mean"), random_features(3)
    monkeypatch.setattr("models.layers.fill.of_all_processes",
                        lambda values: torch.cat([values, values if values.dtype == torch.bool else 2 * values]))
    fill.observe(features)
    torch.testing.assert_close(fill.mean_audio, 1.5 * features.audio.mean(dim=(0, 1)))
