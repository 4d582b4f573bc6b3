"""The library's `Unet1D` with its element-wise work fused: same weights, same values, less memory traffic.

Refinement runs the U-Net ten times with gradient (Eq. 8), so what each block keeps for the backward pass decides the
memory, and what it reads and writes between two convolutions half the time. Here a block keeps only the input and the
output of its convolution; norm, scale-shift and SiLU are computed again in the backward pass from the latter.
"""

from __future__ import annotations

import torch
from denoising_diffusion_pytorch import Unet1D
from denoising_diffusion_pytorch.denoising_diffusion_pytorch_1d import Block, LinearAttention, RMSNorm
from torch import Tensor, nn
from torch.autograd import Function
from torch.utils.checkpoint import checkpoint

EPSILON = 1e-12              # of the library's normalisation


def inverse_rms(x: Tensor) -> Tensor:
    """1 / root mean square over the channels of `x` (S, C, L), (S, 1, L)."""
    norm = (x * x).sum(dim=1, keepdim=True).sqrt().clamp_min(EPSILON)
    return x.shape[1] ** 0.5 / norm


class NormAct(Function):
    """SiLU(RMSNorm(x) * weight + bias), weight and bias (S or 1, C, 1); keeps only `x` and the two.

    With u = x * r, r = 1 / rms(x): dL/dx = r * (du - u * mean_c(du * u)).
    """

    @staticmethod
    def forward(ctx, x: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
        r = inverse_rms(x)
        ctx.save_for_backward(x, weight, bias, r)
        return torch.nn.functional.silu(torch.addcmul(bias, x * r, weight), inplace=True)

    @staticmethod
    def backward(ctx, grad: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        x, weight, bias, r = ctx.saved_tensors
        u = x * r                                                                  # (S, C, L)
        grad = torch.ops.aten.silu_backward(grad, torch.addcmul(bias, u, weight))
        grad_bias = grad.sum(dim=-1, keepdim=True).sum_to_size(bias.shape)
        grad_weight = (grad * u).sum(dim=-1, keepdim=True).sum_to_size(weight.shape)
        grad = grad.mul_(weight)                                                   # du
        shared = (grad * u).mean(dim=1, keepdim=True)
        return grad.addcmul_(u, shared, value=-1).mul_(r), grad_weight, grad_bias


class FusedBlock(Block):
    """Convolution, then `NormAct` in place of four separate operations."""

    def forward(self, x: Tensor, scale_shift: tuple[Tensor, Tensor] | None = None) -> Tensor:
        weight, bias = self.norm.g, torch.zeros_like(self.norm.g)                  # (1, C, 1)
        if scale_shift is not None:
            scale, bias = scale_shift                                              # (S, C, 1)
            weight = weight * (scale + 1)
        x = self.proj(x)
        return NormAct.apply(x, weight.to(x.dtype), bias.to(x.dtype))


class FusedNorm(RMSNorm):
    """The same norm with one reduction."""

    def forward(self, x: Tensor) -> Tensor:
        return x * inverse_rms(x) * self.g.to(x.dtype)


class LeanAttention(LinearAttention):
    """Keeps its input alone; queries, keys, values and both softmaxes are computed again in the backward pass."""

    def forward(self, x: Tensor) -> Tensor:
        return checkpoint(super().forward, x, use_reentrant=False, preserve_rng_state=False)


REPLACED = {Block: FusedBlock, RMSNorm: FusedNorm, LinearAttention: LeanAttention}


def make_denoiser(width: int, channels: int, multipliers: tuple[int, ...]) -> nn.Module:
    """`Unet1D` as the library builds it, with the classes of its parts exchanged; the state dict is the library's."""
    net = Unet1D(width, channels=channels, dim_mults=tuple(multipliers))
    for part in net.modules():
        part.__class__ = REPLACED.get(type(part), type(part))
    return net
