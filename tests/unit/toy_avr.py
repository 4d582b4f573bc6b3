"""AVR at toy size: two questions of three segments with four tokens of eight channels."""

import torch

from models.features import FeatureShape
from models.rmm_avr.avr import AVR

SHAPE = FeatureShape(segments=3, grid=(2, 2), channels=8)
LAYOUTS = ("tokens", "time")
WHOLE = torch.ones(2, 3, dtype=torch.bool)


def pair(batch=2, seed=0):
    g = torch.Generator().manual_seed(seed)
    audio = torch.randn(batch, SHAPE.segments, 8, generator=g) * 3 + 1
    visual = torch.randn(batch, SHAPE.segments, 4, 8, generator=g) * 2 - 1
    return audio, visual


def make(**options):
    torch.manual_seed(0)
    return AVR(SHAPE, width=8, **{"steps": 4, **options})
