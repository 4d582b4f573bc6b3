"""Attention over a stream of which some entries may be masked and to which a method may have added
tokens.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from models.errors import OptionError

Extra = tuple[Tensor, Tensor]            # keys and values (B, P, D)


def attend(
    attention: nn.MultiheadAttention, query: Tensor, tokens: Tensor, mask: Tensor | None = None,
    extra: Extra | None = None, *, values: Tensor | None = None, need_weights: bool = False,
) -> tuple[Tensor, Tensor | None]:
    """`query` (B, Q, D) over `tokens` (B, S, D): attended (B, Q, D) and, if asked, head-averaged
    weights (B, Q, S).

    `mask` (B, S) bool, True = may be read; `extra` tokens always may. `values` (B, S, D) are read
    where they are not the `tokens` that are compared with the query. A question that may read
    nothing gets zeros: a softmax over nothing is NaN.
    """
    keys, values = tokens, tokens if values is None else values
    if extra is not None:
        keys, values = torch.cat([extra[0], keys], dim=1), torch.cat([extra[1], values], dim=1)
        mask = None if mask is None else torch.cat([mask.new_ones(extra[0].shape[:2]), mask], dim=1)
    if mask is None or bool(mask.all()):
        attended, weights = attention(query, keys, values, need_weights=need_weights)
    else:
        nothing = ~mask.any(dim=1)                                                  # (B,)
        excluded = ~(mask | nothing[:, None])                                       # (B, P + S)
        attended, weights = attention(query, keys, values, key_padding_mask=excluded, need_weights=need_weights)
        attended = torch.where(nothing[:, None, None], 0.0, attended)
        weights = None if weights is None else torch.where(nothing[:, None, None], 0.0, weights)
    return attended, None if weights is None else weights[..., keys.shape[1] - tokens.shape[1]:]


def masked_mean(values: Tensor, mask: Tensor | None) -> Tensor:
    """Mean of `values` (B, S, D) over the entries that `mask` (B, S) leaves; zeros where it leaves
    none.
    """
    if mask is None:
        return values.mean(dim=1)
    kept = torch.where(mask.unsqueeze(-1), values, 0.0)
    return kept.sum(dim=1) / mask.sum(dim=1, keepdim=True).clamp_min(1)             # (B, D)


def multihead(dim: int, heads: int, dropout: float) -> nn.MultiheadAttention:
    """Batch-first attention of `heads` heads over `dim` channels; OptionError where they do not
    divide.
    """
    if dim % heads:
        raise OptionError(f"backbone.heads={heads} must divide the {dim} channels of the features")
    return nn.MultiheadAttention(dim, heads, dropout=dropout, batch_first=True)


class AttentionBlock(nn.Module):
    """Attention, then a two-layer perceptron with residual and norm; no residual from the query.

    The block of AVST's temporal grounding (Li et al., CVPR 2022) as released.
    """

    def __init__(self, dim: int, heads: int, dropout: float) -> None:
        super().__init__()
        self.attention = multihead(dim, heads, dropout)
        self.feed_forward = nn.Sequential(
            nn.Linear(dim, dim), nn.ReLU(), nn.Dropout(dropout), nn.Linear(dim, dim), nn.Dropout(dropout)
        )
        self.norm = nn.LayerNorm(dim)

    def forward(
        self, query: Tensor, tokens: Tensor, mask: Tensor | None = None, extra: Extra | None = None, *,
        need_weights: bool = False,
    ) -> tuple[Tensor, Tensor | None]:
        """As `attend`: `query` (B, Q, D), `tokens` (B, S, D) -> (B, Q, D) and weights (B, Q, S) or
        None.
        """
        attended, weights = attend(self.attention, query, tokens, mask, extra, need_weights=need_weights)
        return self.norm(attended + self.feed_forward(attended)), weights
