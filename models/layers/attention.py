"""Attention over a stream: some of its tokens may be masked, a method may have added others."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor, nn

from models.errors import OptionError

Extra = tuple[Tensor, Tensor]            # keys and values (B, P, D)


class Stream(NamedTuple):
    """Tokens (B, S, D), `mask` (B, S) bool of those that may be read, extra tokens of a method.

    Without a mask all may be read. Extra tokens always may, as keys and values only.
    """

    tokens: Tensor
    mask: Tensor | None = None
    extra: Extra | None = None

    @property
    def readable(self) -> Tensor:
        """(B, S) bool, all True without a mask."""
        return self.tokens.new_ones(self.tokens.shape[:2], dtype=torch.bool) if self.mask is None else self.mask

    def mean(self) -> Tensor:
        """Of the tokens that may be read, (B, D)."""
        return masked_mean(self.tokens, self.mask)


def attend(attention: nn.MultiheadAttention, query: Tensor, stream: Stream) -> Tensor:
    """`query` (B, Q, D) over a stream -> (B, Q, D).

    A question that may read nothing gets zeros: a softmax over nothing is NaN.
    """
    keys, mask, extra = stream
    values = keys
    if extra is not None:
        keys, values = (torch.cat([added, stream.tokens], dim=1) for added in extra)
        mask = None if mask is None else torch.cat([mask.new_ones(extra[0].shape[:2]), mask], dim=1)
    # Without a mask torch evaluates on a faster path, which rounds otherwise. Training must not
    # wait for the device to say whether the mask leaves all.
    if mask is None or (not attention.training and bool(mask.all())):
        return attention(query, keys, values, need_weights=False)[0]
    nothing = ~mask.any(dim=1)                                                      # (B,)
    excluded = ~(mask | nothing[:, None])                                           # (B, P + S)
    attended = attention(query, keys, values, key_padding_mask=excluded, need_weights=False)[0]
    return torch.where(nothing[:, None, None], 0.0, attended)


def attention_shares(attention: nn.MultiheadAttention, query: Tensor, stream: Stream) -> Tensor:
    """How `attend` weighs the stream's own tokens, a mean over heads: (B, Q, S)."""
    keys = stream.tokens if stream.extra is None else torch.cat([stream.extra[0], stream.tokens], dim=1)
    weights = attention(query, keys, keys)[1]                                       # (B, Q, P + S)
    return shares(weights[..., -stream.tokens.shape[1]:], stream.readable.unsqueeze(1))


def shares(weights: Tensor, mask: Tensor) -> Tensor:
    """`weights` (..., S) of what `mask` leaves, scaled to sum to one; zeros if that is nothing."""
    kept = torch.where(mask, weights, 0.0)
    return kept / kept.sum(dim=-1, keepdim=True).clamp_min(torch.finfo(kept.dtype).tiny)


def masked_mean(values: Tensor, mask: Tensor | None) -> Tensor:
    """Mean of `values` (B, S, D) over what `mask` (B, S) leaves; zeros where it leaves nothing."""
    if mask is None:
        return values.mean(dim=1)
    kept = torch.where(mask.unsqueeze(-1), values, 0.0)
    return kept.sum(dim=1) / mask.sum(dim=1, keepdim=True).clamp_min(1)             # (B, D)


def multihead(dim: int, heads: int, dropout: float) -> nn.MultiheadAttention:
    """Batch-first attention over `dim` channels; OptionError where `heads` does not divide them."""
    if dim % heads:
        raise OptionError(f"the visual features have {dim} channels, and attention of {heads} heads needs a multiple "
                          f"of {heads}; give features of another width, or choose another backbone")
    return nn.MultiheadAttention(dim, heads, dropout=dropout, batch_first=True)


def perceptron(dim: int, dropout: float) -> nn.Sequential:
    """Two layers of `dim` channels with dropout behind each."""
    return nn.Sequential(nn.Linear(dim, dim), nn.ReLU(), nn.Dropout(dropout), nn.Linear(dim, dim), nn.Dropout(dropout))


class AttentionBlock(nn.Module):
    """Attention, then a perceptron with residual and norm; no residual from the query.

    The block of AVST's temporal grounding (Li et al., CVPR 2022) as released.
    """

    def __init__(self, dim: int, heads: int, dropout: float) -> None:
        super().__init__()
        self.attention = multihead(dim, heads, dropout)
        self.feed_forward = perceptron(dim, dropout)
        self.norm = nn.LayerNorm(dim)

    def forward(self, query: Tensor, stream: Stream) -> Tensor:
        """As `attend`: `query` (B, Q, D) -> (B, Q, D)."""
        attended = attend(self.attention, query, stream)
        return self.norm(attended + self.feed_forward(attended))
