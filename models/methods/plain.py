"""The backbone, trained on what is there; a constant or noise fills an absent modality."""

from __future__ import annotations

from models.features import Features, FeatureShape
from models.layers.fill import Fill, FillMode
from models.methods.base import Method, Views


class Plain(Method):
    """No handling of a missing modality (Table 4, both switches off; Tables 1-3, plain backbones).

    `fill`: what stands in for an absent modality, `zeros`, `noise` or `mean`.
    """

    def __init__(self, shape: FeatureShape, *, fill: FillMode = "zeros") -> None:
        super().__init__()
        self.fill = Fill(shape, fill)

    def fill_in(self, features: Features) -> Features:
        return self.fill(features)

    def views(self, features: Features) -> Views:
        self.fill.observe(features)
        return Views({"complete": self.fill(features)})
