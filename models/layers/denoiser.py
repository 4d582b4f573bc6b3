"""The denoiser of AVR: the library's `Unet1D`, run on sequences stored token by token.

Refinement runs the U-Net ten times with gradient (Eq. 8), so what it reads, writes and keeps between two matrix
products decides time and memory. Four things differ from the library's own forward pass, and no value does:
- channels are the last axis, the order in which convolutions run as plain matrix products without reordering;
- norm, scale-shift and SiLU are one function that keeps its input alone and computes the rest again in its backward
  pass; linear attention and all that lies below the first level are likewise computed again;
- linear attention is linear in its values, so their projections act on its small matrices and not on every token;
- skips are convolved beside the sequence, never concatenated with it.
`read`, `write` and `reread` take the first and the last convolution out of the loop of reverse steps (`diffusion.py`).
"""

from __future__ import annotations

from contextlib import contextmanager

import torch
from denoising_diffusion_pytorch import Unet1D
from denoising_diffusion_pytorch.denoising_diffusion_pytorch_1d import Attention, LinearAttention, ResnetBlock
from torch import Tensor, nn
from torch.autograd import Function
from torch.nn import functional as F
from torch.utils.checkpoint import checkpoint

EPSILON = 1e-12              # of the library's normalisation


class NormAct(Function):
    """u * weight + bias with u = x / rms(x) over the channels, then SiLU if `activate`; x (S, L, C).

    `weight` and `bias` are (S, 1, C) or (1, 1, C). With r = 1 / rms(x): dL/dx = r * (du - u * mean_c(du * u)).
    """

    @staticmethod
    def forward(ctx, x: Tensor, weight: Tensor, bias: Tensor, activate: bool) -> Tensor:
        norm = torch.linalg.vector_norm(x, dim=-1, keepdim=True).clamp_min(EPSILON)
        r = x.shape[-1] ** 0.5 / norm                                              # (S, L, 1)
        ctx.save_for_backward(x, weight, bias, r)
        ctx.activate = activate
        y = torch.addcmul(bias, x * r, weight)
        return F.silu(y, inplace=True) if activate else y

    @staticmethod
    def backward(ctx, grad: Tensor) -> tuple[Tensor | None, ...]:
        x, weight, bias, r = ctx.saved_tensors
        u = x * r
        if ctx.activate:
            grad = torch.ops.aten.silu_backward(grad, torch.addcmul(bias, u, weight))
        product = grad * u
        shared = product @ weight.transpose(1, 2) / x.shape[-1]                    # (S, L, 1), mean_c(du * u)
        grad_weight = product.sum(dim=1, keepdim=True).sum_to_size(weight.shape)
        grad_bias = grad.sum(dim=1, keepdim=True).sum_to_size(bias.shape)
        return (grad * weight).addcmul_(u, shared, value=-1).mul_(r), grad_weight, grad_bias, None


def norm_act(x: Tensor, gain: Tensor, scale_shift: Tensor | None = None, activate: bool = True) -> Tensor:
    """RMS norm with the library's `gain` (1, C, 1), then scale and shift, `scale_shift` (S, 2C), then SiLU."""
    weight = gain.transpose(1, 2)                                                  # (1, 1, C)
    if scale_shift is None:
        bias = torch.zeros_like(weight)
    else:
        scale, bias = scale_shift.unsqueeze(1).chunk(2, dim=-1)                    # (S, 1, C)
        weight = weight * (scale + 1)
    return NormAct.apply(x, weight.to(x.dtype), bias.to(x.dtype), activate)


def convolve(x: Tensor, layer: nn.Conv1d, bias: bool = True) -> Tensor:
    """`layer` over the tokens of `x` (S, L, C), or the same without its bias."""
    return apply_convolution(x, layer.weight.to(x.dtype), layer.bias.to(x.dtype) if bias else None, layer)


def convolve_both(x: Tensor, skip: Tensor, layer: nn.Conv1d) -> Tensor:
    """`layer` over `x` and `skip` side by side, without making or keeping the wide sequence."""
    of_x, of_skip = layer.weight.to(x.dtype).split([x.shape[-1], skip.shape[-1]], dim=1)
    return apply_convolution(x, of_x, layer.bias.to(x.dtype), layer).add_(apply_convolution(skip, of_skip, None, layer))


def apply_convolution(x: Tensor, weight: Tensor, bias: Tensor | None, layer: nn.Conv1d) -> Tensor:
    if layer.kernel_size == (1,):
        return F.linear(x, weight.squeeze(-1), bias)
    image = x.transpose(1, 2).unsqueeze(2)                                         # (S, C, 1, L), channels_last
    y = F.conv2d(image, weight.unsqueeze(2), bias, (1, *layer.stride), (0, *layer.padding))
    return y.squeeze(2).transpose(1, 2).contiguous()                               # (S, L', C')


def recomputed(function, *inputs):
    """`function(*inputs)`, of which only the inputs are kept; what it saves is computed again in the backward pass.

    A matrix product that ends `function` is not repeated. `torch.compile` chooses by itself what to compute again.
    """
    if torch.compiler.is_compiling() or not torch.is_grad_enabled():
        return function(*inputs)
    return checkpoint(function, *inputs, use_reentrant=False, preserve_rng_state=False)


def kept(function, *inputs):
    """`function(*inputs)`, as autograd keeps it: inside what is computed again as a whole, once is enough."""
    return function(*inputs)


def run_resnet(x: Tensor, block: ResnetBlock, time: Tensor, call, skip: Tensor | None = None) -> Tensor:
    """Two convolution blocks, the first one conditioned on the step, and a residual; `skip` stands beside `x`.

    `time` (S, 4 * width) is the embedding after the SiLU that every block would apply again.
    """
    first, second = block.block1, block.block2
    h = convolve(x, first.proj) if skip is None else convolve_both(x, skip, first.proj)
    h = call(lambda y, t: convolve(norm_act(y, first.norm.g, t), second.proj), h, block.mlp[1](time))
    h = norm_act(h, second.norm.g)
    if skip is not None:
        return h + convolve_both(x, skip, block.res_conv)
    return h + (x if isinstance(block.res_conv, nn.Identity) else convolve(x, block.res_conv))


def linear_attention(x: Tensor, layer: LinearAttention, gain: Tensor) -> Tensor:
    """Pre-norm linear attention with residual.

    Per head the library computes softmax(q) (softmax(k)^T v) W_o with v = x W_v. Regrouped as
    softmax(q) ((softmax(k)^T x) (W_v W_o)), the values and the heads' outputs never exist per token.
    """
    h = layer.heads
    to_q, to_k, to_v = layer.to_qkv.weight.to(x.dtype).squeeze(-1).chunk(3)        # (h*d, C) each
    out = layer.to_out[0]
    y = norm_act(x, gain, activate=False)
    q = F.linear(y, to_q).unflatten(-1, (h, -1)).softmax(dim=-1).flatten(2)        # (S, L, h*d)
    k = F.linear(y, to_k)                                                          # (S, L, h*d)
    context = (k.softmax(dim=1).transpose(1, 2) @ y).unflatten(1, (h, -1)).transpose(0, 1)     # (h, S, d, C)
    to_out = out.weight.to(x.dtype).squeeze(-1).t().unflatten(0, (h, -1))          # (h, d, C)
    value = to_v.unflatten(0, (h, -1)).transpose(1, 2) @ to_out                    # (h, C, C), W_v W_o
    mixing = (context.flatten(1, 2) @ (value * layer.scale)).unflatten(1, (len(x), -1))        # (h, S, d, C)
    mixing = mixing.transpose(0, 1).flatten(1, 2)                                  # (S, h*d, C)
    y = q @ mixing + out.bias.to(x.dtype)                                          # (S, L, C)
    return x + norm_act(y, layer.to_out[1].g, activate=False)


def full_attention(x: Tensor, layer: Attention, gain: Tensor) -> Tensor:
    """Pre-norm attention with residual."""
    qkv = convolve(norm_act(x, gain, activate=False), layer.to_qkv, bias=False)                # (S, L, 3*h*d)
    q, k, v = qkv.unflatten(-1, (3, layer.heads, -1)).permute(2, 0, 3, 1, 4)       # (S, h, L, d)
    y = F.scaled_dot_product_attention(q, k, v).transpose(1, 2).flatten(2)         # (S, L, h*d)
    return x + convolve(y, layer.to_out)


def attend(x: Tensor, residual: nn.Module, attention, call) -> Tensor:
    """`attention` with the weights of the library's residual and pre-norm wrappers around it."""
    return call(attention, x, residual.fn.fn, residual.fn.norm.g)


class Denoiser(Unet1D):
    """The library's network, weights and values; `forward` takes and returns (S, L, C) where the library has (S, C, L).

    L must be a multiple of 2 ** (number of multipliers - 1). Under autocast all of it runs in the lower precision.
    """

    def __init__(self, width: int, channels: int, multipliers: tuple[int, ...]) -> None:
        super().__init__(width, channels=channels, dim_mults=tuple(multipliers))

    def forward(self, x: Tensor, step: Tensor, inner: bool = False) -> Tensor:
        """`x` (S, L, C) at the diffusion steps `step` (S,) -> the prediction (S, L, C).

        With `inner`, what lies between the first and the last convolution: `read(x)` (S, L, width) -> (S, L, width).
        """
        with self.one_dtype(x) as dtype:
            time = F.silu(self.time_mlp(step))                                     # (S, 4 * width)
            first = x + self.init_conv.bias if inner else convolve(x.to(dtype), self.init_conv)
            hidden = self.between(first.to(dtype), time)
            return hidden if inner else convolve(hidden, self.final_conv)

    @contextmanager
    def one_dtype(self, x: Tensor):
        """Everything in the dtype that is yielded, the lower one under autocast, without casts in between."""
        device = x.device.type
        dtype = torch.get_autocast_dtype(device) if torch.is_autocast_enabled(device) else x.dtype
        with torch.autocast(device, enabled=False):
            yield dtype

    def read(self, x: Tensor) -> Tensor:
        """The first convolution without its bias: (S, L, C) -> float32 (S, L, width)."""
        with self.one_dtype(x) as dtype:
            return convolve(x.to(dtype), self.init_conv, bias=False).float()

    def write(self, hidden: Tensor) -> Tensor:
        """The last convolution without its bias: (S, L, width) -> float32 (S, L, C)."""
        with self.one_dtype(hidden) as dtype:
            return convolve(hidden.to(dtype), self.final_conv, bias=False).float()

    def reread(self, length: int):
        """`hidden -> read(write(hidden) + the last bias)` as one small convolution, for sequences of `length`."""
        first, last = self.init_conv, self.final_conv
        weight = torch.einsum("ock,cj->ojk", first.weight, last.weight.squeeze(-1))        # (width, width, 7)
        bias = self.read(last.bias.expand(1, length, -1))                                  # (1, L, width)

        def apply(hidden: Tensor) -> Tensor:
            image = hidden.transpose(1, 2).unsqueeze(2)                                    # (S, width, 1, L)
            y = F.conv2d(image, weight.to(hidden.dtype).unsqueeze(2), None, 1, (0, *first.padding))
            return y.squeeze(2).transpose(1, 2).float() + bias                             # (S, L, width)
        return apply

    def between(self, first: Tensor, time: Tensor) -> Tensor:
        x = self.level(0, first, time)
        return run_resnet(x, self.final_res_block, time, recomputed, first)

    def level(self, depth: int, x: Tensor, time: Tensor) -> Tensor:
        """Down, all that lies deeper, and up again; past the deepest level the middle of the U.

        What lies below the first level is a third of the arithmetic and nearly half of what would be kept.
        """
        call = kept if depth else recomputed
        if depth == len(self.downs):
            x = run_resnet(x, self.mid_block1, time, call)
            return run_resnet(attend(x, self.mid_attn, full_attention, call), self.mid_block2, time, call)
        block1, block2, attention, down = self.downs[depth]
        x = skip1 = run_resnet(x, block1, time, call)
        x = skip2 = attend(run_resnet(x, block2, time, call), attention, linear_attention, call)
        x = call(self.level, depth + 1, convolve(x, down), time)
        block1, block2, attention, up = self.ups[len(self.ups) - 1 - depth]
        x = run_resnet(x, block1, time, call, skip2)
        x = run_resnet(x, block2, time, call, skip1)
        x = attend(x, attention, linear_attention, call)
        if isinstance(up, nn.Sequential):
            x, up = x.repeat_interleave(2, dim=1), up[1]                           # nearest upsampling
        return convolve(x, up)
