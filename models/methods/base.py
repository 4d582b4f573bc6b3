"""What every missing-modality method offers; it lives between `encode` and `fuse`."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Literal

import torch
from torch import Tensor, nn

from dataset.types import AUDIO, VISUAL, Batch
from models.features import Features, FeatureShape, Fused

ViewMode = Literal["all", "segments", "sampled", "keep_count", "lacking"]
OneView = Literal["audio_missing", "visual_missing"]


@dataclass
class Views:
    """The completed bundles that training answers, by name, and scalar losses of making them."""

    features: dict[str, Features]
    losses: dict[str, Tensor] = field(default_factory=dict)


@dataclass
class Answered:
    """Logits (B, A) and, in training, loss terms by name with one value per question (B,)."""

    logits: Tensor
    losses: dict[str, Tensor] = field(default_factory=dict)


class Method(nn.Module, ABC):
    """A method never knows which backbone encoded the features; it keeps their shapes.

    `features.presence` (B, T, 2) says what is real, in every argument and in every result. In
    training `features.question_id` is None, and noise comes from the global generator.
    """

    loss_weights: dict[str, float] = {}
    keeps_present: bool = True           # False where the published method rewrites what is there, too
    needs_trained_backbone: bool = False     # True where the backbone's weights are not trained along
    refines_pairs: bool = False          # True where `refine` and `replace` exist, for the official protocol

    def adapt(self, backbone: nn.Module, combination: list[nn.Module]) -> None:
        """Called once when the model is built.

        `combination` are the backbone's layers behind its summaries. A method that trains only a
        part of the backbone, or replaces one, stops the gradients of the rest here.
        """

    def compile_hot_path(self) -> None:
        """torch.compile what costs the most; nothing by default."""

    @abstractmethod
    def fill_in(self, features: Features) -> Features:
        """Something in every absent entry, which is blank; what evaluation answers on."""

    @abstractmethod
    def views(self, features: Features) -> Views:
        """What training answers on; absent entries of `features` are blank."""

    def losses(
        self, features: dict[str, Features], logits: dict[str, Tensor], batch: Batch
    ) -> dict[str, Tensor]:
        """Scalar losses that compare the answered views, by term; none by default.

        `features` and `logits` (B, A) by view, as `views` returned them and as they were answered.
        """
        return {}

    def stages(self, features: Features) -> dict[str, Features]:
        """What `fill_in` makes on its way, by name, to be compared with the real features."""
        return {"stand-in": self.fill_in(features)}

    def addressing(self, features: Features) -> tuple[Tensor, Tensor] | None:
        """The weights (B, T, K) of the slots that either modality is recalled from, or None."""
        return None

    def answer(
        self, fused: Fused, features: Features, head: Callable[[Tensor], Tensor], target: Tensor | None
    ) -> Answered:
        """Logits of what the backbone made of `features`.

        `head` takes vectors (B, ..., D) to logits (B, ..., A). `target` (B,) is the right answer,
        -1 where it is unknown, in training only.
        """
        return Answered(head(fused.vector))


def build_section(module: type, shape: FeatureShape, options: dict):
    """The module of one section, or None where its `enabled` switch is off."""
    options = dict(options)
    return module(shape, **options) if options.pop("enabled", True) else None


def without_match(features: Features) -> Features:
    """No match loss for questions that lack something: a blank is no evidence about what sounds."""
    if features.negative_valid is None:
        return features
    return features.with_(negative_valid=features.negative_valid & features.whole)


def without(presence: Tensor, modality: int) -> Tensor:
    """`presence` (B, T, 2) with one modality taken away, where the other is there to answer from.

    A segment that has only this modality keeps it: training takes one modality, not two.
    """
    other = presence[..., VISUAL if modality == AUDIO else AUDIO]      # (B, T)
    reduced = presence.clone()
    reduced[..., modality] &= ~other
    return reduced


def without_segments(presence: Tensor) -> Tensor:
    """`presence` (B, T, 2) less sound, picture or nothing, equally likely, in each segment."""
    draw = torch.randint(3, presence.shape[:2], device=presence.device)[..., None]         # (B, T, 1)
    no_audio, no_visual = without(presence, AUDIO), without(presence, VISUAL)
    return torch.where(draw == 0, no_audio, torch.where(draw == 1, no_visual, presence))


def simulate(presence: Tensor, mode: ViewMode | OneView) -> dict[str, Tensor]:
    """The states (B, T, 2) that training answers, by view name.

    `all`: every question complete, without audio and without video, as Eq. 8. `segments`: the same,
    and once with single segments missing (`without_segments`). `sampled`: one of the three per
    question, equally likely. `keep_count`: how many modalities are kept is drawn first, then which,
    so that half of the questions stay complete and a quarter lacks each. `lacking`: every question
    lacks the sound, the picture or single segments, equally likely. `audio_missing`,
    `visual_missing`: this view alone.
    """
    no_audio, no_visual = without(presence, AUDIO), without(presence, VISUAL)
    if mode == "lacking":
        draw = torch.randint(3, presence.shape[:1], device=presence.device)[:, None, None]         # (B, 1, 1)
        whole = torch.where(draw == 0, no_audio, no_visual)
        return {"lacking": torch.where(draw == 2, without_segments(presence), whole)}
    if mode in ("sampled", "keep_count"):
        outcomes = 3 if mode == "sampled" else 4                       # 0: no audio, 1: no video, else complete
        draw = torch.randint(outcomes, presence.shape[:1], device=presence.device)[:, None, None]  # (B, 1, 1)
        return {"sampled": torch.where(draw == 0, no_audio, torch.where(draw == 1, no_visual, presence))}
    states = {"complete": presence, "audio_missing": no_audio, "visual_missing": no_visual}
    if mode == "segments":
        states["segments_missing"] = without_segments(presence)
    return {mode: states[mode]} if mode in states else states
