"""Modality dropout: the backbone trained with a modality taken away and filled. The control of
every table.
"""

from __future__ import annotations

from typing import Annotated

from pydantic import Field
from torch import Tensor

from models.features import Features, FeatureShape, blank_features
from models.layers.fill import Fill, FillMode
from models.methods.base import Method, OneView, ViewMode, Views, simulate, without_match


class ModalityDropout(Method):
    """The same fill as `plain`, but absence is simulated in training.

    `views`: the simulated states (`simulate`), `all` as Eq. 8 does for the paper's method. A view
    in which a modality is simply absent gives no match loss: a blank is no evidence about what
    sounds. `label_smoothing` of the answer loss, for a fair comparison with methods that have it.
    With `audio_missing` or `visual_missing` it is trained for that case alone: what the backbone
    can reach there, with nothing else to learn.
    """

    def __init__(
        self,
        shape: FeatureShape,
        *,
        fill: FillMode = "zeros",
        views: ViewMode | OneView = "all",
        label_smoothing: Annotated[float, Field(ge=0, lt=1)] = 0.0,
    ) -> None:
        super().__init__()
        self.label_smoothing = label_smoothing
        self.fill = Fill(shape, fill)
        self.views_mode = views

    def complete(self, features: Features, presence: Tensor) -> Features:
        return self.fill(features, presence, features.question_id)

    def views(self, features: Features, presence: Tensor) -> Views:
        self.fill.observe(features, presence)
        states = simulate(presence, self.views_mode)
        return Views({name: self.blanked(features, state) for name, state in states.items()})

    def blanked(self, features: Features, presence: Tensor) -> Features:
        """`features` as they are when only `presence` (B, T, 2) is there."""
        return without_match(self.fill(blank_features(features, presence), presence, None))
