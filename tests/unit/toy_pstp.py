"""PSTP-Net at toy size."""

from dataclasses import replace

import torch
from toy import random_batch

from dataset.types import DataSpec
from models.backbones.pstp_net import PSTPNet
from models.layers.attention import Stream

# Eight seconds in four segments; seven tokens per second, the first of them the frame.
CLIP = DataSpec(segments=8, audio_channels=6, visual_channels=16, grid=(7, 1), words=5, vocabulary=11, answers=7,
                frame_token=True, text_channels=10)
MAP = replace(CLIP, grid=(2, 3), frame_token=False)


def make(spec=CLIP, **options) -> PSTPNet:
    torch.manual_seed(0)
    return PSTPNet(spec, **options).eval()


def batch_of(size, spec=CLIP, seed=0):
    """Features of both signs and a CLIP question, as they are read."""
    g = torch.Generator().manual_seed(seed)
    batch = random_batch(size, seed, spec)
    return replace(batch, visual=torch.randn(batch.visual.shape, generator=g) * 2,
                   text_words=torch.randn(size, 9, 10, generator=g), text_question=torch.randn(size, 10, generator=g))


def streams(size=3, seed=0, mask=None):
    g = torch.Generator().manual_seed(seed)
    everything = torch.ones(size, 8, dtype=torch.bool)
    audio, frame = (torch.randn(size, 8, 16, generator=g) for _ in range(2))
    mask = everything if mask is None else mask
    return torch.randn(size, 16, generator=g), Stream(audio, mask), Stream(frame, mask)


def vector(model, features):
    with torch.no_grad():
        return model.fuse(features).vector


def changed(before, after):
    return (before - after).abs().amax(dim=1) > 1e-6
