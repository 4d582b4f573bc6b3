"""PSTP-Net, progressive spatio-temporal perception for AVQA (Li et al., ACM MM 2023).

The question chooses segments, then regions of their frames; sound looks at the regions; a path over
all seconds keeps the context; one self-attention layer over everything and the question give the
answer.

Fidelity (the paper, and the official `nets/PSTP_Net_Ours.py`):
- `variant: paper` is the network as described. `released` is what the official model computes: the
  line that would concatenate what was selected is commented out there, and its global path returns
  its inputs, so [audio; frame; words] are all that is fused. There, the modules without effect on
  the answer are not built (nor the projection of patches, where the frame has a token of its own),
  and the keys of selection mean nothing;
- the selections are per question and per frame; the official code takes the ranking of the first
  question's first frame for the whole batch, and its last patch for all places;
- of the two attentions that choose, the paper uses the weights alone. The rest of these attentions
  (values, output, perceptron) could reach no logit and is not built, nor is the bias of their keys,
  which a softmax cancels;
- a hard choice trains nothing that makes it. `selection_gradient: weighted`, the default and ours,
  scales every kept token by its weight times the number of candidates; `none` is literal, and then
  what chooses keeps its initial random weights (`requires_grad` off). As published, dropout acts on
  the weights that choose, in training;
- with CLIP features (`DataSpec.frame_token`) token 0 is the frame and the others are its patches,
  as published. On plain maps the frame is the mean of the projected tokens and has no projection of
  its own;
- `text: clip` is published: projections of CLIP's question and of all 77 of its text positions.
  With `lstm`, for data without them, `QuestionLSTM` gives the question and the words, and padding
  is not fused. Candidates of a multiple choice have no CLIP features and are always read by an
  LSTM, of their own with `clip`;
- the published sizes fit 60 seconds (12 segments, 2 chosen, 25 of 49 patches); `fitted` derives
  others from the data;
- a second that cannot be read is out of every pool, ranking, attention and mean; the sound looks at
  regions only where both are there. Readable segments are chosen first, and what is chosen beyond
  them is masked out;
- prompts are read wherever whole streams are attended to: in choosing segments, in the global path
  and in the fusion;
- the summaries are the means over the audio and over the visual part of the fused sequence. Nothing
  with parameters stands between them and the vector, so there is no combination to train or to
  replace.
"""

from __future__ import annotations

from typing import Literal, NamedTuple

import torch
from torch import Tensor, nn

from dataset.types import MODALITIES, Batch, DataSpec
from models.backbones.base import Backbone, encoded, streams
from models.errors import OptionError
from models.features import Features, Fused
from models.layers.attention import AttentionBlock, Extra, Stream, attend, masked_mean, multihead, perceptron, shares
from models.layers.question import QuestionLSTM
from models.layers.ranking import Ranking

SEGMENTS, TOP_K, KEPT_SHARE = 12, 2, 25 / 49      # published, for 60 seconds and the 49 patches of a ViT-B/32
HEADS, DROPOUT = 4, 0.1                           # as released, where the global path and the fusion have one head


class Sizes(NamedTuple):
    """How many segments there are, how many of them and how many patches of a frame are kept."""

    segs: int
    top_k: int
    top_m: int


class SegmentSelection(nn.Module):
    """Temporal selection: which `top_k` of `segs` segments of the video the question is about."""

    def __init__(self, dim: int, segs: int, top_k: int) -> None:
        super().__init__()
        self.segs, self.top_k = segs, top_k
        self.combine = nn.Linear(2 * dim, dim)
        self.ranking = Ranking(dim, HEADS, DROPOUT)

    def forward(self, question: Tensor, audio: Stream, frame: Stream) -> tuple[Tensor, Tensor]:
        """-> chosen seconds (B, K) in order of time, K = `top_k` * T / `segs`, and shares (B, K).

        A share is the weight of a second's segment times the number of readable segments.
        """
        length = audio.tokens.shape[1] // self.segs
        weights, readable = self.rank(question, audio, frame)
        chosen = best(weights.masked_fill(~readable, -1), self.top_k)               # (B, top_k)
        share = weights.gather(1, chosen) * readable.sum(dim=1, keepdim=True)
        seconds = chosen.unsqueeze(-1) * length + torch.arange(length, device=chosen.device)
        return seconds.flatten(1), share.repeat_interleave(length, dim=1)

    def rank(self, question: Tensor, audio: Stream, frame: Stream) -> tuple[Tensor, Tensor]:
        """The weights of the segments and which may be read, (B, segs) each."""
        pooled = torch.cat([self.pool(audio), self.pool(frame)], dim=-1)            # (B, segs, 2D)
        readable = (audio.mask | frame.mask).unflatten(1, (self.segs, -1)).any(dim=2)
        extra = join_extra(audio.extra, frame.extra)
        return self.ranking(question, Stream(self.combine(torch.tanh(pooled)), readable, extra)), readable

    def attention(self, question: Tensor, audio: Stream, frame: Stream) -> dict[str, Tensor]:
        """As `Fused.attention`: the weights that choose, the same for sound and picture."""
        length = audio.tokens.shape[1] // self.segs
        weights = shares(*self.rank(question, audio, frame)).repeat_interleave(length, dim=1) / length
        return dict.fromkeys(MODALITIES, weights)

    def pool(self, stream: Stream) -> Tensor:
        """(B, T, D) -> (B, segs, D), the mean of what each segment has."""
        tokens, mask = (t.unflatten(1, (self.segs, -1)).flatten(0, 1) for t in (stream.tokens, stream.mask))
        return masked_mean(tokens, mask).unflatten(0, (-1, self.segs))


class RegionSelection(nn.Module):
    """Spatial region selection: which `top_m` patches of a frame the question is about."""

    def __init__(self, dim: int, top_m: int) -> None:
        super().__init__()
        self.top_m = top_m
        self.ranking = Ranking(dim, HEADS, DROPOUT)

    def forward(self, question: Tensor, patches: Tensor) -> tuple[Tensor, Tensor]:
        """`patches` (B, K, M, D) -> those kept (B, K, m, D), shares (B, K, m) = weights times M."""
        seconds, regions = patches.shape[1:3]
        patches = patches.flatten(0, 1)                                             # (B * K, M, D)
        weights = self.ranking(question.repeat_interleave(seconds, dim=0), Stream(patches))     # (B * K, M)
        chosen = best(weights, self.top_m)                                          # (B * K, m)
        share = weights.gather(1, chosen) * regions
        return take(patches, chosen).unflatten(0, (-1, seconds)), share.unflatten(0, (-1, seconds))


class PostNorm(nn.Module):
    """What follows an attention: residual and norm, then a perceptron with residual and norm."""

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.dropout = nn.Dropout(DROPOUT)
        self.norms = nn.ModuleList(nn.LayerNorm(dim) for _ in range(2))
        self.feed_forward = perceptron(dim, DROPOUT)

    def forward(self, tokens: Tensor, *attended: Tensor) -> Tensor:
        tokens = self.norms[0](tokens + sum(self.dropout(a) for a in attended))
        return self.norms[1](tokens + self.feed_forward(tokens))


class CrossModalLayer(nn.Module):
    """Global-local perception: a stream attends to the other one and to itself, single head."""

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.cross, self.own = multihead(dim, 1, DROPOUT), multihead(dim, 1, DROPOUT)
        self.rest = PostNorm(dim)

    def forward(self, stream: Stream, other: Stream) -> Stream:
        cross, own = attend(self.cross, stream.tokens, other), attend(self.own, stream.tokens, stream)
        return stream._replace(tokens=self.rest(stream.tokens, cross, own))


class FusionLayer(nn.Module):
    """Self-attention over all tokens, single head."""

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.attention = multihead(dim, 1, DROPOUT)
        self.rest = PostNorm(dim)

    def forward(self, stream: Stream) -> Tensor:
        return self.rest(stream.tokens, attend(self.attention, stream.tokens, stream))


class Perception(nn.Module):
    """All between the projections and the fusion: the selections, the path over all seconds."""

    def __init__(self, dim: int, sizes: Sizes, weighted: bool) -> None:
        super().__init__()
        self.weighted = weighted
        self.segments = SegmentSelection(dim, sizes.segs, sizes.top_k)
        self.regions = RegionSelection(dim, sizes.top_m)
        self.guided = AttentionBlock(dim, HEADS, DROPOUT)
        self.whole = nn.ModuleList([CrossModalLayer(dim)])                          # one layer, as released
        if not weighted:
            self.segments.requires_grad_(False)
            self.regions.requires_grad_(False)

    def forward(self, question: Tensor, audio: Stream, frame: Stream, patches: Tensor) -> tuple[Stream, Stream]:
        """`patches` (B, T, M, D) -> the audio and the visual tokens that are fused."""
        kept_audio, kept_visual = self.select(question, audio, frame, patches)
        whole_audio, whole_frame = audio, frame
        for layer in self.whole:
            whole_audio = layer(whole_audio, whole_frame)
            whole_frame = layer(whole_frame, whole_audio)
        return join(kept_audio, whole_audio, audio), join(kept_visual, whole_frame, frame)

    def select(self, question: Tensor, audio: Stream, frame: Stream, patches: Tensor) -> tuple[Stream, Stream]:
        """What is kept: K sounds; K frames, K * m patches and what the K sounds see in them."""
        seconds, share = self.segments(question, audio, frame)                      # (B, K) twice
        heard, seen = (
            Stream(self.scale(take(s.tokens, seconds), share), take(s.mask, seconds)) for s in (audio, frame)
        )
        regions, share = self.regions(question, take(patches, seconds))             # (B, K, m, D), (B, K, m)
        regions = self.scale(regions, share)
        size, count = regions.shape[:2]
        guided = self.guided(heard.tokens.flatten(0, 1).unsqueeze(1), Stream(regions.flatten(0, 1)))
        guided = Stream(guided.unflatten(0, (size, count)).squeeze(2), heard.mask & seen.mask)  # (B, K, D)
        mask = seen.mask.repeat_interleave(regions.shape[2], dim=1)                 # (B, K * m)
        return heard, join(seen, Stream(regions.flatten(1, 2), mask), guided)

    def scale(self, tokens: Tensor, share: Tensor) -> Tensor:
        return tokens * share.unsqueeze(-1) if self.weighted else tokens


class ClipText(nn.Module):
    """Projections of CLIP's question and words."""

    def __init__(self, channels: int, dim: int) -> None:
        super().__init__()
        self.word = nn.Linear(channels, dim)
        self.question = nn.Linear(channels, dim)

    def forward(self, batch: Batch) -> tuple[Tensor, Tensor]:
        """-> words (B, Lt, D), question (B, D)."""
        return self.word(batch.text_words), self.question(batch.text_question)


class PSTPNet(Backbone):
    """Progressive spatio-temporal perception. Options: see the fidelity list."""

    has_summaries = True

    def __init__(
        self,
        spec: DataSpec,
        *,
        variant: Literal["paper", "released"] = "paper",
        text: Literal["lstm", "clip"] = "lstm",
        selection_gradient: Literal["weighted", "none"] = "weighted",
    ) -> None:
        super().__init__()
        self.dim = dim = spec.visual_channels
        if text == "clip" and not spec.text_channels:
            raise OptionError("backbone.text=clip needs question features: set dataset.question_features to the .npz "
                              "of scripts/extract_features.py --questions, or backbone.text=lstm")
        self.reads_text = text == "clip"
        self.clip = ClipText(spec.text_channels, dim) if self.reads_text else None
        self.reader = QuestionLSTM(spec.vocabulary, dim) if text == "lstm" or spec.choices else None
        self.audio = nn.Linear(spec.audio_channels, dim)
        self.frame = nn.Linear(dim, dim) if spec.frame_token else None
        paper = variant == "paper"
        self.patch = nn.Linear(dim, dim) if paper or not spec.frame_token else None
        self.perception = Perception(dim, fitted(spec), selection_gradient == "weighted") if paper else None
        self.fusion = FusionLayer(dim)

    def encode(self, batch: Batch) -> Features:
        """The projections. A map has H*W tokens; with a frame token it is the first of them."""
        features = encoded(batch, self.audio(batch.audio), self.clip(batch) if self.clip else self.reader(batch.words))
        mask = torch.ones_like(features.words[..., 0], dtype=torch.bool) if self.clip else features.word_mask
        return features.with_(visual=self.project(features.visual), word_mask=mask)

    def project(self, tokens: Tensor) -> Tensor:
        """(B, T, N, D) -> (B, T, N, D)."""
        if self.frame is None:
            return self.patch(tokens)
        patches = tokens[:, :, 1:] if self.patch is None else self.patch(tokens[:, :, 1:])
        return torch.cat([self.frame(tokens[:, :, :1]), patches], dim=2)

    def encode_text(self, words: Tensor) -> Tensor:
        return self.reader(words)[1]                                                # (B, D)

    def fuse(self, features: Features) -> Fused:
        """Perception, self-attention over all tokens, their mean times the question."""
        frame, patches = self.split(features.visual)                                # (B, T, D), (B, T, M, D)
        heard, seen = (stream._replace(mask=stream.readable) for stream in streams(features, frame))
        extra = join_extra(heard.extra, seen.extra)
        attention = None
        if self.perception is not None:
            if features.wants_attention:
                attention = self.perception.segments.attention(features.question, heard, seen)
            heard, seen = self.perception(features.question, heard, seen, patches)
        fused = join(heard, seen, Stream(features.words, features.word_mask))._replace(extra=extra)
        states = self.fusion(fused)                                                 # (B, S, D)
        vector = torch.tanh(masked_mean(states, fused.mask) * features.question)
        ends = heard.tokens.shape[1], heard.tokens.shape[1] + seen.tokens.shape[1]
        audio, visual = states[:, :ends[0]], states[:, ends[0]:ends[1]]
        summaries = masked_mean(audio, heard.mask), masked_mean(visual, seen.mask)
        return Fused(vector, summaries=summaries, attention=attention)

    def split(self, visual: Tensor) -> tuple[Tensor, Tensor]:
        """(B, T, N, D) -> frames (B, T, D) and patches (B, T, M, D)."""
        if self.frame is None:
            return visual.mean(dim=2), visual
        return visual[:, :, 0], visual[:, :, 1:]


def fitted(spec: DataSpec) -> Sizes:
    """The published sizes fitted to the data; never more than half of the segments are chosen."""
    segs = segment_count(spec.segments)
    patches = spec.tokens - spec.frame_token
    return Sizes(segs, min(TOP_K, max(1, segs // 2)), max(1, round(KEPT_SHARE * patches)))


def segment_count(seconds: int) -> int:
    """The largest divisor up to 12 that leaves a segment two seconds or more; else all seconds."""
    largest = max((n for n in range(1, min(seconds // 2, SEGMENTS) + 1) if seconds % n == 0), default=1)
    return largest if largest > 1 else seconds


def join(*streams: Stream) -> Stream:
    """One sequence, without extra tokens."""
    return Stream(torch.cat([s.tokens for s in streams], dim=1), torch.cat([s.mask for s in streams], dim=1))


def join_extra(*extras: Extra | None) -> Extra | None:
    given = [extra for extra in extras if extra is not None]
    return tuple(torch.cat(parts, dim=1) for parts in zip(*given, strict=True)) if given else None


def best(weights: Tensor, count: int) -> Tensor:
    """Positions (B, count) of the largest `weights` (B, S), ascending; the first of equal ones."""
    return weights.argsort(dim=1, descending=True, stable=True)[:, :count].sort(dim=1).values


def take(values: Tensor, index: Tensor) -> Tensor:
    """`values` (B, S, ...) at the positions `index` (B, K) of each row -> (B, K, ...)."""
    return values[torch.arange(index.shape[0], device=index.device).unsqueeze(1), index]
