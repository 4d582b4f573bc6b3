"""AVSD, the baseline for scene-aware dialog (Schwartz et al., CVPR 2019), without the dialog.

Fidelity (the paper, and the official `mmseq2seq_model.py`, `atten.py`):
- factor-graph attention over the question's words, the frames and the sound: unary, self and pair
  potentials, and a prior at the question's last word, mixed by one weight each. The mean of a
  similarity matrix over one side is taken as a product with the mean of that side, which is the
  same. The other utilities' prior is zero and has no weight;
- the weights of the mix start as those of the release's Conv1d to one channel, from all potentials
  and the zero prior (8 with four frames): uniform within 1 / sqrt of their number, of either sign;
- the attended media vectors, sound first, then the frames in order, go through one LSTM, whose last
  state meets the attended question. The history is gone with the dialog, and beam search with the
  sentence;
- no port to single answers was released; the answer's perceptron is ours;
- 4 frames, as published: segments are averaged in runs of nearly equal length, the map over 2 x 2
  positions, so that 14 x 14 gives the 49 published ones; an odd grid is kept. Frames share all
  weights, as short data have fewer;
- widths are shares of D, of 512 as published: words 128, all else 256. The question's LSTM has D,
  so that a method finds features of one width; its state at the last word is the question vector;
- what cannot be read is out of every potential, mean and softmax; a utility without anything to
  read is a zero vector. Prompts are further elements of the sound and of every frame, never part of
  a mean.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from dataset.types import Batch, DataSpec
from models.backbones.base import Backbone, encoded, streams
from models.errors import OptionError
from models.features import Features, Fused
from models.layers.attention import Extra, Stream, masked_mean, shares
from models.layers.question import run_lstm

FRAMES, DROPOUT = 4, 0.5                 # as published; dropout of the unary potentials and before the answer


class Utility(NamedTuple):
    """U utilities of n elements (B, U, n, H) each, and which of them may be read, (B, U, n)."""

    elements: Tensor
    mask: Tensor


class Read(NamedTuple):
    """The vectors (B, U, H) of U utilities and the weights (B, U, n) of their elements."""

    vectors: Tensor
    weights: Tensor


class Unary(nn.Module):
    """What an element says by itself, and by its similarity to the others of its utility."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.score = nn.Sequential(
            nn.Linear(width, width), nn.ReLU(), nn.Dropout(DROPOUT), nn.Linear(width, 1, bias=False)
        )
        self.left, self.right = nn.Linear(width, width), nn.Linear(width, width)

    def forward(self, own: Utility, extra: Tensor | None) -> list[Tensor]:
        """Potentials (B, U, n) of the elements, and of `extra` (B, U, P, H) behind them, if any."""
        asked = with_extra(own.elements, extra)
        mean = mean_direction(self.right(own.elements), own.mask)                   # (B, U, H)
        return [self.score(asked).squeeze(-1), similarity(self.left(asked), mean)]


class Pair(nn.Module):
    """The similarity of two kinds of utilities, seen from either."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.left, self.right = nn.Linear(width, width), nn.Linear(width, width)

    def from_left(self, left: Tensor, right: Utility) -> Tensor:
        """How near `left` (B, U, n, H) is to each of the V utilities on the right: (B, U, n, V)."""
        return every_similarity(self.left(left), mean_direction(self.right(right.elements), right.mask))

    def from_right(self, right: Tensor, left: Utility) -> Tensor:
        return every_similarity(self.right(right), mean_direction(self.left(left.elements), left.mask))


class FactorGraphAttention(nn.Module):
    """Attention of words, frames and sound to each other (CVPR 2019, section 3)."""

    def __init__(self, width: int, frames: int) -> None:
        super().__init__()
        self.frames = frames
        others = [[j for j in range(frames) if j != i] for i in range(frames)]      # F x (F - 1)
        self.register_buffer("others", torch.tensor(others, dtype=torch.int64), persistent=False)
        self.words, self.frame, self.audio = (Unary(width) for _ in range(3))
        self.words_frame, self.words_audio, self.audio_frame, self.frame_frame = (Pair(width) for _ in range(4))
        bound = (4 + frames) ** -0.5
        self.mix_words, self.mix_audio, self.mix_frame = (
            nn.Parameter(nn.init.uniform_(torch.empty(size), -bound, bound)) for size in (
                4 + frames,              # unary, self, prior, sound, every frame
                3 + frames,              # unary, self, words, every frame
                3 + frames)              # unary, self, words, sound, every other frame
        )

    def forward(
        self, words: Utility, frame: Utility, audio: Utility, prior: Tensor,
        extra_audio: Extra | None = None, extra_frame: Extra | None = None,
    ) -> tuple[Read, Read, Read]:
        """`prior` (B, 1, L) of the words -> what is read of words, frames and sound."""
        heard, seen = keys_of(extra_audio, 1), keys_of(extra_frame, self.frames)
        asked, listened, looked = words.elements, with_extra(audio.elements, heard), with_extra(frame.elements, seen)
        of_words = [*self.words(words, None), prior, *self.words_audio.from_left(asked, audio).unbind(-1),
                    *self.words_frame.from_left(asked, frame).unbind(-1)]
        of_audio = [*self.audio(audio, heard), *self.words_audio.from_right(listened, words).unbind(-1),
                    *self.audio_frame.from_left(listened, frame).unbind(-1)]
        of_frame = [*self.frame(frame, seen), *self.words_frame.from_right(looked, words).unbind(-1),
                    *self.audio_frame.from_right(looked, audio).unbind(-1), *self.other_frames(looked, frame)]
        return (read(words, of_words, self.mix_words, None), read(frame, of_frame, self.mix_frame, extra_frame),
                read(audio, of_audio, self.mix_audio, extra_audio))

    def other_frames(self, looked: Tensor, frame: Utility) -> list[Tensor]:
        """The pair potentials (B, F, n) of every frame with the first, second, ... other one."""
        scores = self.frame_frame.from_left(looked, frame)                          # (B, F, n, F)
        index = self.others[None, :, None].expand(*scores.shape[:3], -1)
        return list(scores.gather(-1, index).unbind(-1))


class AVSD(Backbone):
    """Factor-graph attention, an LSTM over sound and frames, a perceptron; it has no options."""

    def __init__(self, spec: DataSpec) -> None:
        super().__init__()
        self.dim = dim = spec.visual_channels
        if dim % 4:
            raise OptionError(f"backbone=avsd takes shares of the features' {dim} channels; their number must be a "
                             "multiple of 4")
        width, self.grid = dim // 2, spec.grid
        self.frames = min(FRAMES, spec.segments)
        self.embedding = nn.Embedding(spec.vocabulary, dim // 4)
        self.lstm = nn.LSTM(dim // 4, dim, batch_first=True)
        self.audio = nn.Linear(spec.audio_channels, dim)
        self.narrow_words, self.narrow_frame, self.narrow_audio = (nn.Linear(dim, width) for _ in range(3))
        self.attention = FactorGraphAttention(width, self.frames)
        self.media = nn.LSTM(width, width, batch_first=True)
        self.answer = nn.Sequential(nn.Linear(2 * width, dim), nn.ReLU(), nn.Dropout(DROPOUT))

    def encode(self, batch: Batch) -> Features:
        return encoded(batch, self.audio(batch.audio), self.read_words(batch.words))

    def encode_text(self, words: Tensor) -> Tensor:
        return self.read_words(words)[1]                                            # (B, D)

    def read_words(self, words: Tensor) -> tuple[Tensor, Tensor]:
        """`words` (B, L) -> states (B, L, D) and the one at the last real word (B, D)."""
        states = run_lstm(self.lstm, self.embedding(words))[0]
        return states, states[torch.arange(len(words), device=words.device), last_word(words != 0)]

    def fuse(self, features: Features) -> Fused:
        words = Utility(self.narrow_words(features.words).unsqueeze(1), features.word_mask.unsqueeze(1))
        heard, seen = streams(features, features.visual)
        audio = Utility(self.narrow_audio(heard.tokens).unsqueeze(1), heard.readable.unsqueeze(1))
        frame = self.group_frames(seen)
        positions = torch.arange(features.words.shape[1], device=features.words.device)
        prior = (last_word(features.word_mask).unsqueeze(1) == positions).to(audio.elements.dtype)     # (B, L)
        asked, looked, listened = self.attention(
            words, frame, audio, prior.unsqueeze(1),
            narrowed(self.narrow_audio, heard.extra), narrowed(self.narrow_frame, seen.extra),
        )
        media = run_lstm(self.media, torch.cat([listened.vectors, looked.vectors], dim=1))[1][0]    # (1, B, H)
        attention = None
        if features.wants_attention:
            attention = {"audio": shares(listened.weights.squeeze(1), heard.readable),
                         "space": shares(self.over_maps(looked.weights, seen), seen.readable.unsqueeze(-1))}
        return Fused(self.answer(torch.cat([asked.vectors.squeeze(1), media[0]], dim=-1)), attention=attention)

    def group_frames(self, seen: Stream) -> Utility:
        """T maps (B, T, N, D) -> F frames: means of runs of segments on a coarser grid."""
        visual, mask = seen.tokens, seen.readable
        height, width = self.grid
        if height % 2 == 0 and width % 2 == 0:
            visual = visual.unflatten(2, (height // 2, 2, width // 2, 2)).mean(dim=(3, 5)).flatten(2, 3)
        runs = torch.arange(mask.shape[1], device=mask.device).tensor_split(self.frames)
        means = torch.stack([masked_mean(visual[:, run].flatten(2), mask[:, run]) for run in runs], dim=1)
        means = means.unflatten(2, visual.shape[2:])                                # (B, F, n, D)
        shown = torch.stack([mask[:, run].any(dim=1) for run in runs], dim=1)       # (B, F)
        return Utility(self.narrow_frame(means), shown.unsqueeze(-1).expand(means.shape[:3]))

    def over_maps(self, weights: Tensor, seen: Stream) -> Tensor:
        """`weights` (B, F, n) of `group_frames`, for every token of `seen`: (B, T, N)."""
        segments, tokens = seen.tokens.shape[1:3]
        runs = torch.arange(segments).tensor_split(self.frames)
        frame_of = torch.cat([torch.full_like(run, frame) for frame, run in enumerate(runs)])
        weights = weights[:, frame_of.to(weights.device)]                           # (B, T, n)
        if weights.shape[2] == tokens:
            return weights
        coarse = weights.unflatten(2, (self.grid[0] // 2, -1))
        return coarse.repeat_interleave(2, dim=2).repeat_interleave(2, dim=3).flatten(2)

    def combination(self) -> list[nn.Module]:
        return [self.answer]


def last_word(mask: Tensor) -> Tensor:
    """The position (B,) of the last True of `mask` (B, L); 0 where there is none."""
    positions = torch.arange(mask.shape[1], device=mask.device)
    return torch.where(mask, positions, 0).amax(dim=1)


def narrowed(layer: nn.Linear, extra: Extra | None) -> Extra | None:
    return None if extra is None else (layer(extra[0]), layer(extra[1]))


def keys_of(extra: Extra | None, utilities: int) -> Tensor | None:
    """The keys of `extra` for each of several utilities, (B, U, P, H)."""
    return None if extra is None else extra[0].unsqueeze(1).expand(-1, utilities, -1, -1)


def with_extra(elements: Tensor, extra: Tensor | None) -> Tensor:
    return elements if extra is None else torch.cat([elements, extra], dim=2)       # (B, U, n + P, H)


def mean_direction(vectors: Tensor, mask: Tensor) -> Tensor:
    """The mean of the normalised `vectors` (B, U, n, H) that `mask` (B, U, n) leaves: (B, U, H)."""
    directions = F.normalize(vectors, dim=-1).flatten(0, 1)
    return masked_mean(directions, mask.flatten(0, 1)).unflatten(0, mask.shape[:2])


def similarity(vectors: Tensor, mean: Tensor) -> Tensor:
    """Mean cosine (B, U, n) of `vectors` (B, U, n, H) with vectors of that mean direction."""
    return (F.normalize(vectors, dim=-1) @ mean.unsqueeze(-1)).squeeze(-1)


def every_similarity(vectors: Tensor, means: Tensor) -> Tensor:
    """The same with each of V means (B, V, H): (B, U, n, V)."""
    return torch.einsum("bunh,bvh->bunv", F.normalize(vectors, dim=-1), means)


def read(own: Utility, potentials: list[Tensor], mix: Tensor, extra: Extra | None) -> Read:
    """Elements and extra values weighed by the softmax of their mixed potentials."""
    score = torch.stack(potentials, dim=-1) @ mix                                   # (B, U, n + P)
    values, mask = own.elements, own.mask
    if extra is not None:
        values = with_extra(values, extra[1].unsqueeze(1).expand(-1, values.shape[1], -1, -1))
        mask = torch.cat([mask, mask.new_ones(*mask.shape[:2], extra[1].shape[1])], dim=2)
    weights = torch.softmax(score.masked_fill(~mask, torch.finfo(score.dtype).min), dim=-1)
    weights = torch.where(mask, weights, 0.0)                                       # all zero where nothing is readable
    return Read((weights.unsqueeze(2) @ values).squeeze(2), weights[..., :own.elements.shape[2]])
