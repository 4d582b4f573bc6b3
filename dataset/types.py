"""What data and models agree on: modalities, question types, one question, a batch, shapes.

Axes keep their letters everywhere: B questions, T segments, C channels, H x W grid, N = H*W visual
tokens, L words, D feature channels, K slots, A answers.
"""

from __future__ import annotations

from dataclasses import dataclass, fields, replace

import torch
from torch import Tensor

AUDIO, VISUAL = 0, 1                      # columns of every presence mask
MODALITIES = ("audio", "visual")

# The nine question types of MUSIC-AVQA (CVPR 2022, Table 2), in the order of the published tables.
QUESTION_TYPES = (
    "Audio/Counting", "Audio/Comparative",
    "Visual/Counting", "Visual/Location",
    "Audio-Visual/Existential", "Audio-Visual/Location", "Audio-Visual/Counting",
    "Audio-Visual/Comparative", "Audio-Visual/Temporal",
)
# The eight of AVQA (ACM MM 2022), in the order of the published result table.
AVQA_TYPES = ("Which", "Come From", "Happening", "Where", "Why", "Before Next", "When", "Used For")


class DataError(Exception):
    """Bad input from the user; the message names file or field, what was expected, what to do."""


@dataclass(frozen=True)
class Question:
    """One annotated question. `words`: the values filled in, the final punctuation removed."""

    row: int                 # position in the annotation file; unique where question ids repeat
    question_id: int
    video_id: str
    type: str                # one of QUESTION_TYPES for MUSIC-AVQA, of AVQA_TYPES for AVQA
    template: str            # the text with its placeholders, as annotated
    words: tuple[str, ...]
    answer: str              # with candidates, the text of the right one
    choices: tuple[tuple[str, ...], ...] = ()    # the words of each candidate; empty for an open vocabulary
    sound: str | None = None     # the video whose sound is heard, where it is not the video's own
    part: str | None = None      # of a split that is reported in parts, such as head and tail

    def video_of(self, modality: int) -> str:
        """The video whose sound (AUDIO) or picture (VISUAL) belongs to the question."""
        return self.sound if self.sound and modality == AUDIO else self.video_id

    @property
    def texts(self) -> tuple[str, ...]:
        """The candidates as text, `answer` among them."""
        return tuple(" ".join(words) for words in self.choices)


@dataclass(frozen=True)
class DataSpec:
    """Shapes read from the data; the models are built from them and nothing is assumed."""

    segments: int            # T
    audio_channels: int      # 128 for VGGish
    visual_channels: int     # 512 for ResNet-18
    grid: tuple[int, int]    # (H, W)
    words: int               # L, the longest question or candidate in training
    vocabulary: int          # question words, padding and unknown included
    answers: int             # A
    choices: int = 0         # M candidates per question, 0 = an open vocabulary
    frame_token: bool = False    # token 0 of the grid is the frame as a whole (CLIP), the others its patches
    text_channels: int = 0   # of the question features, 0 = there are none

    @property
    def tokens(self) -> int:
        return self.grid[0] * self.grid[1]


@dataclass
class Batch:
    """B questions with their features. Absent entries hold zeros, as `presence` marks them."""

    audio: Tensor            # (B, T, Ca) float32, or float16 where stored so; `to` makes it float32
    visual: Tensor           # (B, T, C, H, W) likewise
    words: Tensor            # (B, L) int64, 0 = padding
    answer: Tensor           # (B,) int64, -1 = not in the vocabulary; with choices, which of them is right
    presence: Tensor         # (B, T, 2) bool, columns AUDIO, VISUAL
    question_id: Tensor      # (B,) int64, seeds the noise of evaluation
    row: Tensor              # (B,) int64, position in the annotation file
    video: Tensor            # (B,) int64, equal for questions on the same video
    choices: Tensor | None = None           # (B, M, L) int64, the words of the candidates
    negative_visual: Tensor | None = None   # (B, T, C, H, W), segments of other videos
    text_words: Tensor | None = None        # (B, Lt, Ct) question features by text position, float32 or float16
    text_question: Tensor | None = None     # (B, Ct) of the whole question
    nothing_absent: Tensor | None = None    # `presence` itself, where the host has seen that all of it is True

    @property
    def whole(self) -> bool:
        """True where nothing is absent, as far as that is known without waiting for the device."""
        return self.nothing_absent is self.presence

    def map(self, change) -> Batch:
        """The same batch with `change` applied to every tensor."""
        values = {f.name: getattr(self, f.name) for f in fields(self)}
        return replace(self, **{k: change(v) for k, v in values.items() if v is not None})

    def to(self, device: torch.device | str) -> Batch:
        """On `device`; features stored in half precision travel so and are float32 from here on.

        From here on `presence` must not be changed in place: `whole` remembers what it held.
        """
        moved = self.map(lambda t: t.to(device, non_blocking=True))
        moved = moved.map(lambda t: t.float() if t.is_floating_point() else t)
        on_host = self.presence.device.type == "cpu"
        return replace(moved, nothing_absent=moved.presence if on_host and bool(self.presence.all()) else None)

    def pin_memory(self) -> Batch:
        """Called by the loader; a batch that is not pinned blocks while it is copied to the GPU."""
        return self.map(Tensor.pin_memory)

    def __len__(self) -> int:
        return self.words.shape[0]
