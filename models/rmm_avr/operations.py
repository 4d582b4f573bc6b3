"""The two operations of `fast.py` with a backward pass of their own. Rows are ordered by position,
then by sequence.

L positions, S sequences, C channels, K taps of a kernel.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.autograd import Function
from torch.nn import functional as F

EPSILON = 1e-12              # of the library's normalisation


class NormAct(Function):
    """u * weight + bias with u = x / rms(x) over the channels, then SiLU if `activate`; x (L*S, C).

    `weight` and `bias` are (C,), or (S, C) where every sequence has its own. With r = 1 / rms(x):
    dL/dx = r * (du - u * mean_c(du * u)).
    """

    @staticmethod
    def forward(ctx, x: Tensor, weight: Tensor, bias: Tensor | None, activate: bool) -> Tensor:
        norm = torch.linalg.vector_norm(x, dim=-1, keepdim=True).clamp_min_(EPSILON)
        r = norm.reciprocal_().mul_(x.shape[-1] ** 0.5)                            # (L*S, 1)
        u = x * r
        ctx.save_for_backward(u, weight, bias, r)
        ctx.activate = activate
        y = affine(u, weight, bias)
        return F.silu(y, inplace=True) if activate else y

    @staticmethod
    def backward(ctx, grad: Tensor) -> tuple[Tensor | None, ...]:
        u, weight, bias, r = ctx.saved_tensors
        if ctx.activate:
            grad = torch.ops.aten.silu_backward(grad, affine(u, weight, bias))
        product, du = grad * u, rows(grad, weight) * weight
        shared = (product @ weight).unsqueeze(-1) if weight.dim() == 1 else (du.view_as(u) * u).sum(-1, keepdim=True)
        to_bias = None if bias is None else rows(grad, bias).sum(dim=0)
        to_x = du.view_as(u).addcmul_(u, shared, value=-1 / u.shape[-1]).mul_(r)
        return to_x, rows(product, weight).sum(dim=0), to_bias, None


def rows(values: Tensor, weight: Tensor) -> Tensor:
    """`values` (L*S, C) as they are, or as (L, S, C) beside a `weight` (S, C)."""
    return values if weight.dim() == 1 else values.view(-1, *weight.shape)


def affine(u: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
    """`u` (L*S, C) times `weight` plus `bias`, (C,) or (S, C)."""
    parts = rows(u, weight)
    return (parts * weight if bias is None else torch.addcmul(bias, parts, weight)).view_as(u)


class ShortConvolution(Function):
    """A convolution along few positions with zeros outside: x (L*S, C), weight (C, K, C'), K odd ->
    (L*S, C').

    A tap reads rows that lie a multiple of S away: forward, one product per tap on whole slabs;
    backward, the gradient's shifted slabs side by side, and one product for each side.
    """

    @staticmethod
    def forward(ctx, x: Tensor, weight: Tensor, bias: Tensor | None, sequences: int) -> Tensor:
        ctx.save_for_backward(x, weight)
        ctx.sequences, ctx.has_bias = sequences, bias is not None
        kernel = weight.shape[1]
        middle = weight[:, kernel // 2]                                            # (C, C')
        y = x @ middle if bias is None else torch.addmm(bias, x, middle)
        for k, to, of in slabs(len(x), kernel, sequences):
            y[to].addmm_(x[of], weight[:, k])
        return y

    @staticmethod
    def backward(ctx, grad: Tensor) -> tuple[Tensor | None, ...]:
        x, weight = ctx.saved_tensors
        side = beside(grad, weight.shape[1], ctx.sequences)                        # (L*S, K * C')
        to_bias = grad.sum(dim=0) if ctx.has_bias else None
        return side @ weight.flatten(1).t(), (x.t() @ side).view_as(weight), to_bias, None


def slabs(size: int, kernel: int, sequences: int) -> list[tuple[int, slice, slice]]:
    """Of every tap but the middle one that meets a position: index, rows written, rows read."""
    taps = []
    for k in range(kernel):
        shift = (k - kernel // 2) * sequences
        if shift and abs(shift) < size:
            taps.append((k, slice(max(0, -shift), size - max(0, shift)), slice(max(0, shift), size + min(0, shift))))
    return taps


def beside(grad: Tensor, kernel: int, sequences: int) -> Tensor:
    """(L*S, K * C'): for every row read and every tap, the gradient of the row written to."""
    size, channels = grad.shape
    if kernel // 2 * sequences < size:
        side = grad.new_empty(size, kernel, channels)
        for k in range(kernel):
            shift = (k - kernel // 2) * sequences
            side[:max(0, shift), k] = 0
            side[size + min(0, shift):, k] = 0
    else:
        side = grad.new_zeros(size, kernel, channels)
    side[:, kernel // 2] = grad
    for k, to, of in slabs(size, kernel, sequences):
        side[of, k] = grad[to]
    return side.view(size, -1)
