"""The question encoder shared by backbones without pretrained text features."""

from __future__ import annotations

import torch
from torch import Tensor, nn


def run_lstm(lstm: nn.LSTM, steps: Tensor) -> tuple[Tensor, tuple[Tensor, Tensor]]:
    """`lstm(steps)` in float32, under autocast too: few CPUs have an LSTM in bfloat16.

    `steps` (B, L, C) -> states (B, L, D) and the last hidden and cell state, (1, B, D) each.
    """
    with torch.autocast(steps.device.type, enabled=False):
        return lstm(steps.float())


class QuestionLSTM(nn.Module):
    """Words to states and one question vector (MUSIC-AVQA, CVPR 2022, `net_grd_avst`).

    Embedding, tanh, one LSTM layer over all L positions, the final hidden and cell state side by
    side, tanh, linear. The official code lets the LSTM read the padding after the words, with a
    trained vector for it; so does this one, and a question is therefore always read at the data
    set's full length L.
    """

    def __init__(self, vocabulary: int, dim: int) -> None:
        super().__init__()
        self.embedding = nn.Embedding(vocabulary, dim)
        self.lstm = nn.LSTM(dim, dim, batch_first=True)
        self.project = nn.Linear(2 * dim, dim)

    def forward(self, words: Tensor) -> tuple[Tensor, Tensor]:
        """`words` (B, L) int64 -> states (B, L, D) and question (B, D)."""
        embedded = torch.tanh(self.embedding(words))                   # (B, L, D)
        states, (hidden, cell) = run_lstm(self.lstm, embedded)         # (B, L, D), (1, B, D) twice
        final = torch.cat([hidden[-1], cell[-1]], dim=-1)              # (B, 2D)
        return states, self.project(torch.tanh(final))                 # (B, D)
