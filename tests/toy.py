"""Toy-sized inputs shared by the tests."""

from __future__ import annotations

import torch
from torch import nn

from dataset.types import Batch, DataSpec
from models.avqa import AVQAModel
from models.features import Features, FeatureShape
from models.objective import total_loss

SPEC = DataSpec(segments=4, audio_channels=6, visual_channels=16, grid=(2, 3), words=5, vocabulary=11, answers=7)
SHAPE = FeatureShape(segments=4, grid=(2, 3), channels=16)


def random_batch(size: int, seed: int = 0, spec: DataSpec = SPEC) -> Batch:
    g = torch.Generator().manual_seed(seed)
    height, width = spec.grid
    return Batch(
        audio=torch.rand(size, spec.segments, spec.audio_channels, generator=g),
        visual=torch.rand(size, spec.segments, spec.visual_channels, height, width, generator=g),
        words=torch.randint(0, spec.vocabulary, (size, spec.words), generator=g),
        answer=torch.randint(0, spec.choices or spec.answers, (size,), generator=g),
        presence=torch.ones(size, spec.segments, 2, dtype=torch.bool),
        question_id=torch.arange(100, 100 + size),
        row=torch.arange(size),
        video=torch.arange(size),
        choices=torch.randint(0, spec.vocabulary, (size, spec.choices, spec.words), generator=g)
        if spec.choices else None,
    )


def random_features(size: int, seed: int = 0, shape: FeatureShape = SHAPE) -> Features:
    g = torch.Generator().manual_seed(seed)
    return Features(
        audio=torch.randn(size, shape.segments, shape.channels, generator=g),
        visual=torch.rand(size, shape.segments, shape.tokens, shape.channels, generator=g),
        words=torch.randn(size, 5, shape.channels, generator=g),
        word_mask=torch.ones(size, 5, dtype=torch.bool),
        question=torch.randn(size, shape.channels, generator=g),
        question_id=torch.arange(100, 100 + size),
        presence=torch.ones(size, shape.segments, 2, dtype=torch.bool),
    )


def completed(model: AVQAModel, features: Features) -> Features:
    """The features with every absent entry filled by the method."""
    return model.method.fill_in(features)


def unweighted(model: AVQAModel, batch: Batch) -> torch.Tensor:
    """The sum of a training pass's loss terms, each with weight 1; KeyError without a weight."""
    return total_loss(model(batch).terms, dict.fromkeys(model.loss_weights, 1.0))


def without_dropout(model: nn.Module) -> nn.Module:
    for module in model.modules():
        if isinstance(module, nn.Dropout):
            module.p = 0.0
        if isinstance(module, nn.MultiheadAttention):
            module.dropout = 0.0
    return model


def named(terms: dict[str, dict[str, torch.Tensor]]) -> dict[str, torch.Tensor]:
    """{`TERM_VIEW`: value}, or {term: value} across views, as metrics.jsonl has them."""
    return {f"{term}_{view}".rstrip("_"): value for term, views in terms.items() for view, value in views.items()}


def flat(layer: dict, prefix: str = "") -> dict:
    """`{"a": {"b": 1}}` as `{"a.b": 1}`."""
    pairs = {}
    for key, value in layer.items():
        pairs |= flat(value, f"{prefix}{key}.") if isinstance(value, dict) else {f"{prefix}{key}": value}
    return pairs
