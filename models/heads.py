"""Answer heads: the backbone's vector to logits."""

from __future__ import annotations

from torch import Tensor, nn

from dataset.types import Batch


class OpenVocabulary(nn.Module):
    """One logit per answer of the vocabulary."""

    def __init__(self, dim: int, answers: int) -> None:
        super().__init__()
        self.answer = nn.Linear(dim, answers)

    def forward(self, vector: Tensor, batch: Batch) -> Tensor:
        """`vector` (B, D) -> logits (B, A); every question has the same answers, so the batch adds nothing."""
        return self.answer(vector)                                     # (B, A)
