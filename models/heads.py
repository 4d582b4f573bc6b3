"""Answer heads: the backbone's vector to logits."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn

from dataset.types import Batch

Encoder = Callable[[Tensor], Tensor]         # words (B, L) to vectors (B, D)


class OpenVocabulary(nn.Module):
    """One logit per answer of the vocabulary."""

    def __init__(self, dim: int, answers: int) -> None:
        super().__init__()
        self.answer = nn.Linear(dim, answers)

    def forward(self, vector: Tensor, batch: Batch, encode_text: Encoder) -> Tensor:
        """`vector` (B, ..., D) -> logits (B, ..., A); no text is needed, all answers are known."""
        return self.answer(vector)                                     # (B, ..., A)


class MultipleChoice(nn.Module):
    """One logit per candidate of the question: s_j = w . tanh(z * Linear(e_j)).

    z is the backbone's vector, e_j the candidate as the backbone's question encoder reads it, with
    the same weights. The paper does not say how its backbones score the candidates of AVQA; this
    repeats the product and tanh by which AVST (CVPR 2022) joins media and question. Without a bias:
    added to every candidate, it would change nothing.
    """

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.project = nn.Linear(dim, dim)
        self.score = nn.Linear(dim, 1, bias=False)

    def forward(self, vector: Tensor, batch: Batch, encode_text: Encoder) -> Tensor:
        """`vector` (B, ..., D), candidates (B, M, L) of the batch -> logits (B, ..., M)."""
        encoded = encode_text(batch.choices.flatten(0, 1))             # (B * M, D)
        projected = self.project(encoded.unflatten(0, batch.choices.shape[:2]))        # (B, M, D)
        for _ in vector.shape[1:-1]:
            projected = projected.unsqueeze(1)                         # (B, ..., M, D)
        joint = torch.tanh(vector.unsqueeze(-2) * projected)
        return self.score(joint).squeeze(-1)                           # (B, ..., M)
