"""DrFuse (Yao et al., AAAI 2024): shared and distinct representations of what is there."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from dataset.types import AUDIO, VISUAL
from models.features import Features, FeatureShape, Fused, blank_features
from models.layers.attention import masked_mean
from models.methods.base import Answered, Method, ViewMode, Views, simulate, without_match

DROPOUT = 0.3                # of the encoders, as released


@dataclass
class Disentangled:
    """Shared and distinct (B, 2, H) by modality, the pooled shared one (B, H), presence (B, 2)."""

    shared: Tensor
    distinct: Tensor
    pooled: Tensor
    present: Tensor

    @property
    def sources(self) -> Tensor:
        """(B, 3, H): distinct audio, shared, distinct visual."""
        return torch.stack([self.distinct[:, AUDIO], self.pooled, self.distinct[:, VISUAL]], dim=1)

    @property
    def readable(self) -> Tensor:
        """(B, 3) bool, the sources that are there."""
        return torch.stack([self.present[:, AUDIO], self.present.any(dim=1), self.present[:, VISUAL]], dim=1)


class ClassAttention(nn.Module):
    """Attention over three sources, a key per source and answer (the paper's disease-wise one)."""

    def __init__(self, width: int, answers: int) -> None:
        super().__init__()
        self.project = nn.Linear(width, (2 + answers) * width)

    def forward(self, sources: Tensor, readable: Tensor) -> tuple[Tensor, Tensor]:
        """`sources` (B, S, H), `readable` (B, S) -> read (B, K, H), weights (B, K, S), or zeros."""
        width = sources.shape[-1]
        projected = self.project(sources).unflatten(-1, (-1, width))                # (B, S, 2 + K, H)
        query, value, keys = masked_mean(projected[:, :, 0], readable), projected[:, :, 1], projected[:, :, 2:]
        scores = torch.einsum("bh,bskh->bks", query, keys).float() / math.sqrt(width)
        nothing = ~readable.any(dim=1, keepdim=True)                                # (B, 1)
        scores = scores.masked_fill(~(readable | nothing).unsqueeze(1), -math.inf)
        weights = torch.where(readable.unsqueeze(1), torch.softmax(scores, dim=-1), 0.0)
        return weights.to(value.dtype) @ value, weights


class DrFuse(Method):
    """Yao et al., "DrFuse: Learning Disentangled Representation for Clinical Multi-Modal Fusion
    with Missing Modality and Modal Inconsistency", AAAI 2024; numbers from the released code.

    It takes the place of the backbone's combination layers: the summary of each modality is split
    into a shared and a distinct representation, and attention chooses among distinct audio, shared
    and distinct visual, with a key for every answer of an open vocabulary; a multiple choice has no
    answers of its own, so there it has a single one. Option: `views` (`simulate`).

    Fidelity:
    - logit pooling, common projector, attention with a mean query, orthogonality, ranking and
      auxiliary losses of weight 1 (`drfuse.py`, `drfuse_trainer.py`); H = D / 2, which is 256 as
      released with features of 512;
    - the encoders are two-layer perceptrons on a backbone's summaries, where the original has whole
      networks: the backbone has encoded already. Where a backbone has no summaries, the means of
      its encoded streams over what is there take their place, and its own vector takes that of the
      question in the final product, so that it still takes part. That is ours;
    - the original asks no question. Here the product and tanh of AVST join it to each
      representation before an answer is read off, and one answer layer, the model's, reads them
      all, each through a linear map of its own;
    - one answer of many is right, so cross entropy replaces binary cross entropy, except in the
      ranking of sources, which needs a cost per answer (with a single key the question's cross
      entropy);
    - both modalities may be absent; the original never loses its first one. With neither, the
      product has the question alone, and nothing but the answer is trained;
    - the divergence is that of Bernoulli variables, averaged over dimensions, of questions with
      both modalities; the release's lacks the terms in 1 - p, grows with the width, and adds up
      all questions;
    - the ranking's mean over violated entries is taken per question, the release's over the batch;
    - absence is simulated per whole modality: `views: all` (Eq. 8) is the rule of every row here,
      `sampled` comes closest to the release's option that unpairs training data.
    """

    loss_weights = {"shared": 1.0, "distinct": 1.0, "orthogonal": 1.0, "jsd": 1.0, "ranking": 1.0}

    def __init__(self, shape: FeatureShape, *, views: ViewMode = "all") -> None:
        super().__init__()
        D, H = shape.channels, shape.channels // 2
        self.views_mode = views
        self.per_answer = shape.answers > 0
        self.encode_shared = nn.ModuleList(encoder(D, H) for _ in range(2))        # AUDIO, VISUAL
        self.encode_distinct = nn.ModuleList(encoder(D, H) for _ in range(2))
        self.project_shared = nn.Sequential(
            nn.Linear(H, 2 * H), nn.ReLU(), nn.Linear(2 * H, H), nn.ReLU(), nn.Linear(H, H)
        )
        self.attention = ClassAttention(H, shape.answers if self.per_answer else 1)
        self.context = nn.Linear(D, H)                                 # the other factor of the final product
        self.question = nn.Linear(D, H)                                # that of the three auxiliary ones
        self.read_final = nn.Linear(H, D)
        self.read_source = nn.ModuleList(nn.Linear(H, D) for _ in range(3))

    def adapt(self, backbone: nn.Module, combination: list[nn.Module]) -> None:
        if backbone.has_summaries:
            for layer in combination:
                layer.requires_grad_(False)

    def fill_in(self, features: Features) -> Features:
        return self.absent(features, features.presence)

    def views(self, features: Features) -> Views:
        states = simulate(features.presence, self.views_mode)
        return Views({name: self.absent(features, state) for name, state in states.items()})

    def absent(self, features: Features, presence: Tensor) -> Features:
        """`features` of which only `presence` (B, T, 2) may be read; nothing stands in."""
        return without_match(blank_features(features, presence)).with_(filled=False)

    def answer(
        self, fused: Fused, features: Features, head: Callable[[Tensor], Tensor], target: Tensor | None
    ) -> Answered:
        parts = self.disentangle(*summaries(fused, features))
        sources, readable = parts.sources, parts.readable
        read, weights = self.attention(sources, readable)                           # (B, K, H), (B, K, 3)
        read = torch.where(readable.any(dim=1)[:, None, None], read, 1.0)           # neutral in the product below
        context = self.context(features.question if fused.summaries else fused.vector)
        final = self.read_final(torch.tanh(read * context.unsqueeze(1)))            # (B, K, D)
        if target is None:
            return Answered(self.own_logit(head(final)))
        joint = torch.tanh(sources * self.question(features.question).unsqueeze(1))
        auxiliary = torch.stack([layer(joint[:, i]) for i, layer in enumerate(self.read_source)], dim=1)
        logits = head(torch.cat([final, auxiliary], dim=1))                         # (B, K + 3, A)
        losses = self.source_losses(parts, weights, logits[:, -3:].float(), target)
        return Answered(self.own_logit(logits[:, :-3]), losses)

    def disentangle(self, summary: Tensor, present: Tensor) -> Disentangled:
        """`summary`, `present` (B, 2, D), (B, 2): what both share, what each has alone."""
        shared = torch.stack([self.project_shared(f(summary[:, m])) for m, f in enumerate(self.encode_shared)], dim=1)
        distinct = torch.stack([f(summary[:, m]) for m, f in enumerate(self.encode_distinct)], dim=1)
        alone = torch.where(present[:, AUDIO, None], shared[:, AUDIO], shared[:, VISUAL])
        both = present.all(dim=1, keepdim=True)
        return Disentangled(shared, distinct, torch.where(both, logit_pool(*shared.unbind(1)), alone), present)

    def own_logit(self, logits: Tensor) -> Tensor:
        """(B, K, A) -> (B, A): of the representation of each answer, the logit of that answer."""
        return logits.diagonal(dim1=1, dim2=2) if self.per_answer else logits[:, 0]

    def source_losses(
        self, parts: Disentangled, weights: Tensor, logits: Tensor, target: Tensor
    ) -> dict[str, Tensor]:
        """All (B,), zero where undefined.

        `weights` (B, K, 3) and `logits` (B, 3, A) are those of the sources, `target` (B,).
        """
        both, readable = parts.present.all(dim=1), parts.readable
        target = target.unsqueeze(1).expand(-1, 3)                                  # (B, 3)
        cross = F.cross_entropy(logits.transpose(1, 2), target, ignore_index=-1, reduction="none")
        cross = torch.where(readable, cross, 0.0)
        costs = answer_costs(logits, target) if self.per_answer else cross.unsqueeze(-1)
        ranking = ranking_loss(weights.transpose(1, 2), costs)
        cosine = F.cosine_similarity(parts.shared.float(), parts.distinct.float(), dim=-1).abs()        # (B, 2)
        return {
            "shared": cross[:, 1],
            "distinct": cross[:, 0] + cross[:, 2],
            "orthogonal": torch.where(parts.present, cosine, 0.0).sum(dim=1),
            "jsd": torch.where(both, bernoulli_jsd(*parts.shared.float().unbind(1)), 0.0),
            "ranking": torch.where(both & (target[:, 0] >= 0), ranking, 0.0),
        }


def encoder(channels: int, width: int) -> nn.Sequential:
    return nn.Sequential(nn.Linear(channels, width), nn.ReLU(), nn.Dropout(DROPOUT), nn.Linear(width, width))


def summaries(fused: Fused, features: Features) -> tuple[Tensor, Tensor]:
    """The summaries (B, 2, D) of both streams, zeros for absent ones, and who is there (B, 2)."""
    present = features.presence.any(dim=1)
    streams = fused.summaries or (
        masked_mean(features.audio, features.presence[..., AUDIO]),
        masked_mean(features.visual.mean(dim=2), features.presence[..., VISUAL]),
    )
    return torch.where(present.unsqueeze(-1), torch.stack(streams, dim=1), 0.0), present


def logit_pool(x: Tensor, y: Tensor) -> Tensor:
    """The logit of the mean of two probabilities given as logits.

    It is log(2e^(x+y) + e^x + e^y) - log(2 + e^x + e^y).
    """
    zero, both = torch.zeros_like(x), x + y
    return torch.stack([both, both, x, y]).logsumexp(dim=0) - torch.stack([zero, zero, x, y]).logsumexp(dim=0)


def bernoulli_jsd(x: Tensor, y: Tensor) -> Tensor:
    """(B,) in [0, log 2]: of Bernoulli variables with logits `x`, `y` (B, H), the mean over H."""
    mixture = logit_pool(x, y)
    return (half_jsd(x, y, mixture) + half_jsd(-x, -y, -mixture)).mean(dim=1)       # p, then 1 - p


def half_jsd(x: Tensor, y: Tensor, mixture: Tensor) -> Tensor:
    """(p log(p / m) + q log(q / m)) / 2 for the probabilities p, q, m of three logits."""
    log_p, log_q, log_m = F.logsigmoid(x), F.logsigmoid(y), F.logsigmoid(mixture)
    return (log_p.exp() * (log_p - log_m) + log_q.exp() * (log_q - log_m)) / 2


def answer_costs(logits: Tensor, target: Tensor) -> Tensor:
    """Binary cross entropy (B, 3, A) of the sources' `logits` (B, 3, A) against `target` (B, 3)."""
    answers = torch.arange(logits.shape[-1], device=logits.device)
    wanted = (target.clamp_min(0).unsqueeze(-1) == answers).to(logits.dtype)
    return F.binary_cross_entropy_with_logits(logits, wanted, reduction="none")


def ranking_loss(weights: Tensor, costs: Tensor) -> Tensor:
    """The source of lower cost shall have the higher weight; both (B, 3, K) -> (B,).

    By how much it has not, as the mean over the answers where that is so, averaged over the three
    pairs. Costs are only compared, so no gradient reaches them.
    """
    excess = []
    for s, t in ((0, 1), (0, 2), (1, 2)):
        lead = weights[:, t] - weights[:, s]
        wrong = torch.where(costs[:, s] < costs[:, t], lead, -lead).relu()          # (B, K)
        excess.append(wrong.sum(dim=1) / (wrong > 0).sum(dim=1).clamp_min(1))
    return torch.stack(excess).mean(dim=0)
