"""What every backbone offers: `encode` up to the seam, `fuse` behind it."""

from __future__ import annotations

from abc import ABC, abstractmethod

from torch import Tensor, nn

from dataset.types import AUDIO, VISUAL, Batch
from models.features import Features, Fused
from models.layers.attention import Stream


class Backbone(nn.Module, ABC):
    """A backbone never knows which method completed the features it fuses."""

    dim: int                             # D, the width of every stream it hands over
    loss_weights: dict[str, float] = {}  # weight of each of its own terms
    needs_negatives: bool = False        # whether training batches must carry features of other videos
    reads_text: bool = False             # whether it reads the question features in place of the vocabulary's words
    has_summaries: bool = False          # whether `fuse` hands over the summary of each stream

    @abstractmethod
    def encode(self, batch: Batch) -> Features:
        """Each stream depends on its own modality (and the text) only."""

    @abstractmethod
    def encode_text(self, words: Tensor) -> Tensor:
        """The question encoder on any text, as heads read candidates: (B, L) int64 -> (B, D)."""

    @abstractmethod
    def fuse(self, features: Features) -> Fused:
        """Complete features to one vector per question, without what `features.mask` excludes."""

    def combination(self) -> list[nn.Module]:
        """The layers that make the vector of the two summaries, or the last before the answer.

        A method may train these alone, or replace them by its own combination.
        """
        return []


def as_tokens(maps: Tensor) -> Tensor:
    """(B, T, C, H, W) -> (B, T, N, C), a view."""
    return maps.flatten(3).transpose(2, 3)


def encoded(batch: Batch, audio: Tensor, text: tuple[Tensor, Tensor]) -> Features:
    """`audio` (B, T, D), the maps as tokens, `text`: words (B, L, D) and question (B, D)."""
    words, question = text
    return Features(audio=audio, visual=as_tokens(batch.visual), words=words, word_mask=batch.words != 0,
                    question=question, question_id=batch.question_id, presence=batch.presence, video=batch.video)


def streams(features: Features, visual: Tensor) -> tuple[Stream, Stream]:
    """Sound and picture with their masks and extra tokens; `visual` (B, T, D) of the map."""
    return (Stream(features.audio, features.mask(AUDIO), features.extra(AUDIO)),
            Stream(visual, features.mask(VISUAL), features.extra(VISUAL)))
