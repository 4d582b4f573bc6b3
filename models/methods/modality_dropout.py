"""Modality dropout: the backbone trained with a modality taken away, zeros in its place."""

from __future__ import annotations

from models.features import Features, FeatureShape, blank_features
from models.methods.base import Method, OneView, ViewMode, Views, simulate, without_match


class ModalityDropout(Method):
    """The same zeros as `plain`, but absence is simulated in training: the control of every table.

    `views`: the simulated states (`simulate`), `all` as Eq. 8 does for the paper's method. With
    `audio_missing` or `visual_missing` it is trained for that case alone: what the backbone can
    reach there, with nothing else to learn. A view in which a modality is simply absent gives no
    match loss: a blank is no evidence about what sounds.
    """

    def __init__(self, shape: FeatureShape, *, views: ViewMode | OneView = "all") -> None:
        super().__init__()
        self.views_mode = views

    def fill_in(self, features: Features) -> Features:
        return features

    def views(self, features: Features) -> Views:
        states = simulate(features.presence, self.views_mode)
        return Views({name: without_match(blank_features(features, state)) for name, state in states.items()})
