"""What every backbone offers: `encode` up to the seam, `fuse` behind it."""

from __future__ import annotations

from abc import ABC, abstractmethod

from torch import Tensor, nn

from dataset.types import Batch
from models.features import Features, Fused


class Backbone(nn.Module, ABC):
    """A backbone never knows which method completed the features it fuses."""

    dim: int                             # D, the width of every stream it hands over
    loss_weights: dict[str, float] = {}  # weight of each of its own terms
    needs_negatives: bool = False        # whether training batches must carry features of other videos
    has_summaries: bool = False          # whether `fuse` hands over the summary of each stream

    @abstractmethod
    def encode(self, batch: Batch) -> Features:
        """Each stream depends on its own modality (and the text) only."""

    @abstractmethod
    def encode_text(self, words: Tensor) -> Tensor:
        """The question encoder on any text, `words` (B, L) int64 -> (B, D); heads read candidates
        with it.
        """

    @abstractmethod
    def fuse(self, features: Features) -> Fused:
        """Complete features to one vector per question; entries that `features.mask` excludes are
        not read.
        """

    def combination(self) -> list[nn.Module]:
        """The layers that make the vector of the two summaries, or whatever stands last before the
        answer layer.

        A method may train these alone, or replace them by its own combination.
        """
        return []
