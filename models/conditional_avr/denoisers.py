"""Networks that see the present tokens clean, the missing ones noised, and the question.

B questions, T segments, M = 1 + N tokens of a segment (sound first), D channels, W the width.
"""

from __future__ import annotations

import math
from typing import Literal

import torch
from denoising_diffusion_pytorch import Unet1D
from torch import Tensor, nn

from models.errors import OptionError
from models.features import FeatureShape

Network = Literal["transformer", "unet"]
HEADS, EXPANSION = 4, 4                  # of the transformer; the hidden layer in units of the width
RATES = 32                               # sines of the time embedding
FASTEST = 1000.0                         # radians per unit of time


class TokenTransformer(nn.Module):
    """torch's own encoder over all tokens of a question at once: sound, picture, question.

    Learned embeddings say segment, place and whether a token is missing; the time is added to the
    missing ones.
    """

    def __init__(self, shape: FeatureShape, width: int, layers: int) -> None:
        super().__init__()
        D = shape.channels
        self.enter = nn.Linear(2 * D, width)
        self.question = nn.Linear(D, width)
        self.segment = nn.Parameter(torch.randn(shape.segments, 1, width) * 0.02)
        self.place = nn.Parameter(torch.randn(1 + shape.tokens, width) * 0.02)
        self.missing = nn.Parameter(torch.randn(2, width) * 0.02)
        self.time = nn.Sequential(nn.Linear(2 * RATES, width), nn.GELU(), nn.Linear(width, width))
        layer = nn.TransformerEncoderLayer(width, HEADS, EXPANSION * width, 0.0, "gelu", batch_first=True,
                                           norm_first=True)
        self.encoder = nn.TransformerEncoder(layer, layers, norm=nn.LayerNorm(width), enable_nested_tensor=False)
        self.leave = nn.Linear(width, D)

    def train(self, mode: bool = True) -> TokenTransformer:
        """The encoder has no dropout and stays in training mode: in evaluation torch writes all
        products of queries and keys to memory on a CPU, which takes twice the time.
        """
        super().train(mode)
        self.encoder.train()
        return self

    def forward(self, real: Tensor, state: Tensor, missing: Tensor, question: Tensor, t: Tensor) -> Tensor:
        """`real`, `state` (B, T, M, D), zeros where they do not count; `missing` (B, T, M);
        `question` (B, D); `t` (B,) -> the prediction (B, T, M, D).
        """
        x = self.enter(torch.cat([real, state], dim=-1)) + self.segment + self.place           # (B, T, M, W)
        x = x + torch.where(missing[..., None], self.missing[1] + self.time(sines(t))[:, None, None], self.missing[0])
        x = torch.cat([self.question(question)[:, None], x.flatten(1, 2)], dim=1)  # (B, 1 + T*M, W)
        return self.leave(self.encoder(x)[:, 1:]).unflatten(1, real.shape[1:3])


class PairUnet(nn.Module):
    """The paper's `Unet1D` over the sequence [question, sound, N visual tokens] of every segment.

    What is known enters as further channels: the state, the present features, and a mark.
    """

    def __init__(self, shape: FeatureShape, width: int, layers: int) -> None:
        super().__init__()
        self.stages = layers - 1                                       # each halves the sequence
        most = 1 + (1 + shape.tokens).bit_length()                     # down to one place
        if layers > most:
            raise OptionError(f"method.layers={layers} is too many for method.network=unet: every layer but the first "
                              f"halves a sequence of {2 + shape.tokens} places; set method.layers to {most} or fewer")
        self.unet = Unet1D(width, channels=2 * shape.channels + 1, out_dim=shape.channels, dim_mults=(1,) * layers)

    def forward(self, real: Tensor, state: Tensor, missing: Tensor, question: Tensor, t: Tensor) -> Tensor:
        """As `TokenTransformer.forward`."""
        B, T, M, D = real.shape
        known = torch.cat([real, state, missing[..., None].to(real.dtype)], dim=-1)            # (B, T, M, 2D + 1)
        asked = nn.functional.pad(question, (0, D + 1))[:, None, None].expand(B, T, 1, -1)
        x = torch.cat([asked, known], dim=2).flatten(0, 1)             # (B*T, 1 + M, 2D + 1)
        x = nn.functional.pad(x, (0, 0, 0, -(1 + M) % 2 ** self.stages))
        y = self.unet(x.transpose(1, 2), FASTEST * t.repeat_interleave(T)).transpose(1, 2)
        return y[:, 1:1 + M].unflatten(0, (B, T))


NETWORKS = {"transformer": TokenTransformer, "unet": PairUnet}


def sines(t: Tensor) -> Tensor:
    """Times (B,) in [0, 1] -> (B, 2 * RATES), sines and cosines of falling rates."""
    rates = FASTEST * torch.exp(-math.log(FASTEST) * torch.arange(RATES, device=t.device) / RATES)
    angle = t[:, None] * rates                                         # (B, RATES)
    return torch.cat([angle.sin(), angle.cos()], dim=-1)
