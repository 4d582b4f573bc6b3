"""How a question ranks candidates: attention weights of which nothing but the order is used."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from models.layers.attention import Stream


class Ranking(nn.Module):
    """The head-averaged attention weights of a question over candidates: all a selection needs."""

    def __init__(self, dim: int, heads: int, dropout: float) -> None:
        super().__init__()
        self.heads, self.dropout = heads, dropout
        self.query = nn.Linear(dim, dim)
        self.key = nn.Linear(dim, dim, bias=False)
        for layer in (self.query, self.key):         # as within nn.MultiheadAttention, which stacks three
            nn.init.xavier_uniform_(layer.weight, gain=math.sqrt(0.5))

    def forward(self, question: Tensor, candidates: Stream) -> Tensor:
        """`question` (B, D), S candidates -> weights (B, S), 0 where masked unless all are."""
        keys, mask = candidates.tokens, candidates.readable
        if candidates.extra is not None:
            keys = torch.cat([keys, candidates.extra[0]], dim=1)                    # (B, S + P, D)
            mask = torch.cat([mask, mask.new_ones(candidates.extra[0].shape[:2])], dim=1)
        query = self.query(question).unflatten(-1, (self.heads, -1))                # (B, h, D / h)
        keys = self.key(keys).unflatten(-1, (self.heads, -1))                       # (B, S + P, h, D / h)
        scores = torch.einsum("bhd,bshd->bhs", query, keys) / math.sqrt(query.shape[-1])
        scores = scores.masked_fill(~mask.unsqueeze(1), torch.finfo(scores.dtype).min)
        weights = F.dropout(torch.softmax(scores, dim=-1), self.dropout, self.training).mean(dim=1)
        return weights[:, :candidates.tokens.shape[1]]                              # (B, S)
