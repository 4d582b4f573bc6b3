"""The Relation-aware Missing Modal (RMM) generator, section 3.1, Eq. 1-4 of the paper.

Fidelity:
- Eq. 1-2 as printed; that i counts segments, not videos, is a reading, and so are N(0, 1) slots;
- the visual slots have the size of a whole flattened map, w*h*c;
- `loss_reduction: mean` departs from the letter of Eq. 3, which sums over elements: with lambda1 =
  1 the sum over 100,352 elements would drown the answer losses; `sum` is selectable, per segment;
- L_rmmr trains the encoders, too: Eq. 3 does not say that its target is fixed;
- where both modalities are absent, Eq. 2 is undefined; the question alone addresses the slots.

The outer softmax of Eq. 2 acts on products of probabilities in [0, 1], so no slot can weigh more
than e times another and the pseudo feature stays close to the mean of the slots. `addressing:
product_of_experts` is ours: softmax(s^v + s^t), the normalised product of the two addressings.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Annotated, Literal

import torch
from pydantic import Field
from torch import Tensor, nn
from torch.nn import functional as F

from dataset.types import AUDIO, VISUAL
from models.features import Features, FeatureShape

Slots = Annotated[int, Field(ge=1, le=10_000)]


@dataclass
class Pseudo:
    """Recalled audio (B, T, D), visual (B, T, N, D); how slots were addressed, (B, T, K) each."""

    audio: Tensor
    visual: Tensor
    audio_addressing: Tensor
    visual_addressing: Tensor


class RMM(nn.Module):
    """Three banks of K slots; the present modality and the question address the slots of the absent
    one.

    `slots` K, the paper's L (75). `addressing`: Eq. 2 or ours. `scale`: Eq. 1 divides by sqrt(c)
    also for the flattened map (`channels`); `length` divides by the root of the vector's own
    length. `loss_reduction`: of Eq. 3.
    """

    def __init__(
        self,
        shape: FeatureShape,
        *,
        slots: Slots = 75,
        addressing: Literal["paper", "product_of_experts"] = "paper",
        scale: Literal["channels", "length"] = "channels",
        loss_reduction: Literal["mean", "sum"] = "mean",
    ) -> None:
        super().__init__()
        self.addressing, self.loss_reduction = addressing, loss_reduction
        D, N = shape.channels, shape.tokens
        self.divisor = D if scale == "channels" else None                          # None: the vector's length
        self.audio_slots = nn.Parameter(torch.randn(slots, D))
        self.visual_slots = nn.Parameter(torch.randn(slots, D * N))                # in the order of a map (D, H, W)
        self.text_slots = nn.Parameter(torch.randn(slots, D))

    def score(self, vector: Tensor, slots: Tensor) -> Tensor:
        """s of Eq. 1: `vector` (..., C) against `slots` (K, C) -> (..., K)."""
        return F.linear(vector, slots) / math.sqrt(self.divisor or slots.shape[-1])

    def score_question(self, features: Features) -> Tensor:
        """s^t of Eq. 1, (B, 1, K): the same for every segment of a question."""
        return self.score(features.question, self.text_slots).float().unsqueeze(1)

    def address(self, modal: Tensor, text: Tensor, present: Tensor) -> Tensor:
        """The addressing vector of Eq. 2, (B, T, K), from the scores `modal` (B, T, K) and `text`;
        of `text` alone where `present` (B, T) says that the addressing modality is absent.
        """
        if self.addressing == "paper":
            joint = torch.softmax(torch.softmax(modal, dim=-1) * torch.softmax(text, dim=-1), dim=-1)
        else:
            joint = torch.softmax(modal + text, dim=-1)
        return torch.where(present.unsqueeze(-1), joint, torch.softmax(text, dim=-1))

    def forward(self, features: Features) -> Pseudo:
        """Recall both modalities everywhere (Eq. 2); what `features.presence` marks may address.

        The softmaxes are taken in float32 under any precision.
        """
        B, T, N, D = features.visual.shape
        flat = features.visual.transpose(2, 3).reshape(B, T, D * N)
        text = self.score_question(features)
        from_visual = self.score(flat, self.visual_slots).float()                   # (B, T, K)
        from_audio = self.score(features.audio, self.audio_slots).float()           # (B, T, K)
        a_vt = self.address(from_visual, text, features.presence[..., VISUAL])      # addresses the audio slots
        a_at = self.address(from_audio, text, features.presence[..., AUDIO])        # addresses the visual slots
        audio = a_vt.to(features.audio.dtype) @ self.audio_slots.to(features.audio.dtype)       # (B, T, D)
        visual = a_at.to(features.visual.dtype) @ self.visual_slots.to(features.visual.dtype)   # (B, T, D*N)
        return Pseudo(audio, visual.reshape(B, T, D, N).transpose(2, 3), a_vt, a_at)

    def loss(self, features: Features, pseudo: Pseudo) -> Tensor:
        """L_rmmr = L_a + L_v, Eq. 3-4, over the segments where both modalities are real."""
        whole, terms = features.presence.all(dim=-1), []                            # (B, T)
        for real, recalled in ((features.audio, pseudo.audio), (features.visual, pseudo.visual)):
            error = (real.float() - recalled.float()).square().flatten(2)           # (B, T, C)
            error = error.sum(-1) if self.loss_reduction == "sum" else error.mean(-1)
            terms.append((error * whole).sum() / whole.sum().clamp_min(1))
        return terms[0] + terms[1]
