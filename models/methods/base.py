"""What every missing-modality method offers: it lives between `encode` and `fuse` and nowhere else."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass, field

from torch import Tensor, nn

from dataset.types import AUDIO, VISUAL
from models.features import Features


@dataclass
class Views:
    """The completed bundles that training answers, by name, and the method's own scalar loss terms."""

    features: dict[str, Features]
    losses: dict[str, Tensor] = field(default_factory=dict)


class Method(nn.Module, ABC):
    """A method never knows which backbone encoded the features; it returns the shapes it received."""

    loss_weights: dict[str, float] = {}

    def compile_hot_path(self) -> None:
        """torch.compile what costs the most; nothing by default."""

    @abstractmethod
    def complete(self, features: Features, presence: Tensor) -> Features:
        """Every entry that `presence` (B, T, 2) marks absent filled; what evaluation answers on."""

    @abstractmethod
    def views(self, features: Features, presence: Tensor) -> Views:
        """What training answers on. `features` is blank where `presence` (B, T, 2) is False."""


def without(presence: Tensor, modality: int) -> Tensor:
    """`presence` (B, T, 2) with one modality taken away, where the other is there to answer from.

    A segment that has only this modality keeps it: training simulates one missing modality, not two.
    """
    other = presence[..., VISUAL if modality == AUDIO else AUDIO]      # (B, T)
    reduced = presence.clone()
    reduced[..., modality] &= ~other
    return reduced
