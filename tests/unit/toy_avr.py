"""AVR at toy size: two questions of three segments with four tokens of eight channels."""

import torch

from models.features import Features, FeatureShape
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


def bundle(audio, visual, present, ids=None):
    """Both streams as the method hands them to AVR; `present` (B, T) marks whole pairs."""
    nothing, words = torch.zeros(len(audio), 8), torch.zeros(len(audio), 1, 8)
    presence = present.unsqueeze(-1).expand(*present.shape, 2)
    return Features(audio, visual, words, words[..., 0] == 0, nothing, ids, presence)


def loss(avr, audio, visual, present):
    return avr.loss(bundle(audio, visual, present))


def refine(avr, audio, visual, ids):
    """Both refined sides."""
    refined = avr.refine(bundle(audio, visual, torch.ones(audio.shape[:2], dtype=torch.bool), ids))
    return refined.audio, refined.visual
