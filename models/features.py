"""What flows through the model: `Features` between a backbone's `encode` and its `fuse`, `Fused`
behind it.

B questions, T segments, N = H*W visual tokens, L words, D channels, P extra tokens.
"""

from __future__ import annotations

from dataclasses import dataclass, field, fields, replace

import torch
from torch import Tensor

from dataset.types import AUDIO, MODALITIES, VISUAL


@dataclass(frozen=True)
class FeatureShape:
    """The sizes a method needs to build its parameters."""

    segments: int            # T
    grid: tuple[int, int]    # (H, W)
    channels: int            # D
    answers: int = 0         # A, 0 = candidates of a multiple choice

    @property
    def tokens(self) -> int:
        return self.grid[0] * self.grid[1]


@dataclass
class Features:
    """Encoded streams of B questions.

    `presence` says which entries are real. What stands in for the others a method has written into
    them, unless `filled` is False: then they hold zeros that no backbone may read, and `mask` has
    to be heeded.
    """

    audio: Tensor                     # (B, T, D)
    visual: Tensor                    # (B, T, N, D)
    words: Tensor                     # (B, L, D)
    word_mask: Tensor                 # (B, L) bool, True = a word
    question: Tensor                  # (B, D)
    question_id: Tensor | None        # (B,) int64, seeds the noise of evaluation; None in training
    presence: Tensor                  # (B, T, 2) bool, columns AUDIO, VISUAL
    samples: int = 1                  # completions of every question, one after the other on the batch axis
    filled: bool = True               # False: absent entries are to be masked out, nothing stands in for them
    video: Tensor | None = None       # (B,) int64, equal for questions on one video
    negative: Tensor | None = None    # (B, T, N, D) visual of other videos, training only
    negative_valid: Tensor | None = None    # (B,) bool, False = no other video was at hand
    audio_keys: Tensor | None = None        # (B, P, D) extra tokens that whatever attends to the audio stream reads,
    audio_values: Tensor | None = None      # (B, P, D) as keys and as values; never queries, never part of a mean
    visual_keys: Tensor | None = None
    visual_values: Tensor | None = None
    wants_attention: bool = False     # True: `fuse` hands over `Fused.attention`
    nothing_absent: Tensor | None = None    # as `Batch.nothing_absent`

    def with_(self, **changes) -> Features:
        return replace(self, **changes)

    @property
    def whole(self) -> Tensor:
        """(B,) bool: every entry of both streams is real; alignment losses need that."""
        return self.presence.flatten(1).all(dim=1)

    @property
    def known_whole(self) -> bool:
        """True where nothing is absent, as far as that is known without waiting for the device."""
        return self.nothing_absent is self.presence

    def mask(self, modality: int) -> Tensor | None:
        """(B, T) bool, the segments of one stream that may be read; None where all may."""
        return None if self.filled else self.presence[..., modality]

    def extra(self, modality: int) -> tuple[Tensor, Tensor] | None:
        """The extra keys and values of one stream, (B, P, D) each, or None."""
        name = MODALITIES[modality]
        keys, values = getattr(self, f"{name}_keys"), getattr(self, f"{name}_values")
        return None if keys is None else (keys, values)

    def rows(self, index: Tensor | slice) -> Features:
        """The questions that `index` (a bool mask, positions or a slice) selects."""
        return self._map(lambda t: t[index])

    def split(self, size: int) -> list[Features]:
        """Cut the batch into bundles of `size` questions; the inverse of `concatenate`."""
        return [self.rows(slice(i, i + size)) for i in range(0, self.audio.shape[0], size)]

    def _map(self, change) -> Features:
        values = {f.name: getattr(self, f.name) for f in fields(self)}
        return replace(self, **{k: change(v) for k, v in values.items() if isinstance(v, Tensor)})


@dataclass
class Fused:
    """What a backbone makes of the features: the vector (B, D) that the answer layer reads.

    `losses`: the backbone's own terms by name, one value per question (B,), so that views stacked
    on the batch axis can be told apart; empty in evaluation. `summaries`: what is left of the audio
    and of the visual stream, (B, D) each, after the question read them and before both were
    combined. `attention`, only where `Features.wants_attention` asks for it: the shares of the
    segments of either stream, `audio` and `visual` (B, T), and of the tokens of every segment,
    `space` (B, T, N), as far as the backbone has them. They sum to one, or are zeros where nothing
    may be read.
    """

    vector: Tensor
    losses: dict[str, Tensor] = field(default_factory=dict)
    summaries: tuple[Tensor, Tensor] | None = None
    attention: dict[str, Tensor] | None = None


def concatenate(bundles: list[Features]) -> Features:
    """One bundle of all questions, so that several views go through a backbone as one batch."""
    if len(bundles) == 1:
        return bundles[0]
    values = {}
    for item in fields(Features):
        parts = [getattr(b, item.name) for b in bundles]
        values[item.name] = torch.cat(parts) if isinstance(parts[0], Tensor) else parts[0]
    return Features(**values)


def blank(values: Tensor, present: Tensor) -> Tensor:
    """`values` (B, T, ...) with zeros wherever `present` (B, T) is False.

    A select, never a product: NaN times zero is NaN.
    """
    mask = present.reshape(present.shape + (1,) * (values.dim() - 2))
    return torch.where(mask, values, torch.zeros((), dtype=values.dtype, device=values.device))


def blank_features(features: Features, presence: Tensor) -> Features:
    """`features` of which only `presence` (B, T, 2) is there: zeros in all other entries."""
    return features.with_(
        presence=presence,
        audio=blank(features.audio, presence[..., AUDIO]),
        visual=blank(features.visual, presence[..., VISUAL]),
    )


def merge(base: Features, other: Features, of_audio: Tensor, of_visual: Tensor) -> Features:
    """`base` with the segments of `other` that the masks `of_audio`, `of_visual` (B, T) select."""
    return base.with_(
        audio=torch.where(of_audio[..., None], other.audio, base.audio),
        visual=torch.where(of_visual[..., None, None], other.visual, base.visual),
    )


def fill_absent(features: Features, audio: Tensor, visual: Tensor) -> Features:
    """`features` with `audio` (B, T, D) and `visual` (B, T, N, D) in the absent entries."""
    stand_in = features.with_(audio=audio.to(features.audio.dtype), visual=visual.to(features.visual.dtype))
    return merge(features, stand_in, ~features.presence[..., AUDIO], ~features.presence[..., VISUAL])
