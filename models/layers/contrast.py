"""Contrast of paired vectors within a batch."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F


def info_nce(anchor: Tensor, partner: Tensor, video: Tensor, usable: Tensor, temperature: float) -> Tensor:
    """InfoNCE (van den Oord et al., 2018) of `anchor` against `partner`, both (B, C), per question
    (B,).

    A question's own partner is the positive, the partners of questions on other videos (`video`
    (B,) int64) are the negatives. Only `usable` (B,) questions take part; the others, and a
    question without negatives, get zero.
    """
    similarity = F.normalize(anchor.float(), dim=-1) @ F.normalize(partner.float(), dim=-1).T / temperature     # (B, B)
    negative = (video[:, None] != video[None, :]) & usable[None, :]
    own = torch.eye(len(video), dtype=torch.bool, device=video.device)
    scores = similarity.masked_fill(~(negative | own), -torch.inf)
    loss = scores.logsumexp(dim=1) - similarity.diagonal()                          # (B,)
    return torch.where(usable & negative.any(dim=1), loss, 0.0)
