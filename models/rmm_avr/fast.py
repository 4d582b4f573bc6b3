"""What `diffusion.py` computes, in less time and memory; nothing here changes a value. Skip it on a
first reading.

Training differentiates through every reverse step (Eq. 8), so a step's kernels, reads and writes
are paid T times:
- a reverse step is linear but for the inside of the U-Net. `FastDiffusion` therefore stays in the
  `width` channels of that inside and leaves the C channels of the sequence once, at the end;
- inside, rows are ordered by position, then by sequence, (L*S, C). A convolution of short sequences
  is one matrix product per tap on whole slabs; long ones are an image whose channels lie together;
- weights are laid out once for all steps;
- all sequences are at the same step, so its embedding conditions each block once, not per sequence;
- norm, scale-shift and SiLU are one function that keeps one tensor;
- linear attention multiplies positions with positions where a sequence is short, and keeps its
  values and heads off the tokens where it is long;
- where the kept tensors of all steps would be large, most passes are computed again going backward.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from contextlib import contextmanager

import torch
from denoising_diffusion_pytorch.denoising_diffusion_pytorch_1d import Attention, LinearAttention, ResnetBlock, RMSNorm
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils.checkpoint import checkpoint

from models.rmm_avr.diffusion import Denoiser, FeatureDiffusion
from models.rmm_avr.operations import NormAct, ShortConvolution

KEPT_TENSORS = 160           # of L x S x width numbers that autograd keeps of one pass, about
KEPT_BYTES = 2 ** 30         # of all passes together; those beyond it are computed again
SHORT = 16                   # positions up to which a product per tap beats the library's convolution


class Weights:
    """The weights inside a denoiser for some passes: in one dtype, laid out, conditioned on the
    steps.

    `layers`: weight and bias of a convolution; of short sequences (C, K, C'), of others (C', C, K,
    1) with the channels last in memory; with one tap (C, C') for both. `gains`: of a norm (C,).
    `conditioned`: weight and bias of the first norm of a block, (steps, C) each, or with
    `each_step` a list of (C,) pairs.
    """

    def __init__(self, model: Denoiser, step: Tensor, dtype: torch.dtype, short: bool, each_step: bool) -> None:
        time = F.silu(model.time_mlp(step)).to(dtype)                              # (steps, 4 * width)
        inside = [module for module in model.modules() if module not in (model.init_conv, model.final_conv)]
        convolutions = [module for module in inside if isinstance(module, nn.Conv1d)]
        self.layers = {layer: (laid_out(layer, short).to(dtype), None if layer.bias is None else layer.bias.to(dtype))
                       for layer in convolutions}
        self.gains = {norm: norm.g.flatten().to(dtype) for norm in inside if isinstance(norm, RMSNorm)}
        self.conditioned = {}
        for block in (module for module in inside if isinstance(module, ResnetBlock)):
            linear = block.mlp[1]
            scale, shift = F.linear(time, linear.weight.to(dtype), linear.bias.to(dtype)).chunk(2, dim=-1)
            weight = self.gains[block.block1.norm] * (scale + 1)
            pairs = zip(weight.unbind(), shift.unbind(), strict=True) if each_step else None
            self.conditioned[block] = (weight, shift) if pairs is None else list(pairs)


def laid_out(layer: nn.Conv1d, short: bool) -> Tensor:
    """See `Weights`; a kernel of 4 with stride 2 is one of 3 on pairs of positions, (2C, 3, C')."""
    if layer.kernel_size == (1,):
        return layer.weight.squeeze(-1).t()
    if not short:
        return layer.weight.unsqueeze(-1).contiguous(memory_format=torch.channels_last)
    if layer.stride == (1,):
        return layer.weight.permute(1, 2, 0)
    first, second, third, fourth = layer.weight.permute(2, 1, 0).unbind()          # (C, C') each
    nothing = torch.zeros_like(first)
    before, own, after = torch.cat([nothing, first]), torch.cat([second, third]), torch.cat([fourth, nothing])
    return torch.stack([before, own, after], dim=1)


class Pass:
    """One pass through the inside of the U-Net.

    `row`: the step among those of `weights`; None: one per sequence.
    """

    def __init__(self, model: FastDenoiser, weights: Weights, row: int | None, sequences: int) -> None:
        self.model, self.weights, self.sequences = model, weights, sequences
        self.conditioned = {block: pairs if row is None else pairs[row] for block, pairs in weights.conditioned.items()}

    def __call__(self, first: Tensor) -> Tensor:
        """(L*S, width) after the first convolution -> (L*S, width) before the last."""
        return self.resnet(torch.cat([self.level(0, first), first], dim=1), self.model.final_res_block)

    def convolve(self, x: Tensor, layer: nn.Conv1d) -> Tensor:
        weight, bias = self.weights.layers[layer]
        if layer.kernel_size == (1,):
            return x @ weight if bias is None else torch.addmm(bias, x, weight)
        return convolve(x, weight, bias, self.sequences, layer.stride[0])

    def norm(self, x: Tensor, norm: nn.Module, activate: bool = True) -> Tensor:
        return NormAct.apply(x, self.weights.gains[norm], None, activate)

    def resnet(self, x: Tensor, block: ResnetBlock) -> Tensor:
        """Two convolution blocks, the first one conditioned on the step, and a residual."""
        first, second = block.block1, block.block2
        h = NormAct.apply(self.convolve(x, first.proj), *self.conditioned[block], True)
        h = self.norm(self.convolve(h, second.proj), second.norm)
        return h + (x if isinstance(block.res_conv, nn.Identity) else self.convolve(x, block.res_conv))

    def attend(self, x: Tensor, residual: nn.Module) -> Tensor:
        """Pre-norm attention with residual, with the weights of the library's wrappers."""
        layer, y = residual.fn.fn, self.norm(x, residual.fn.norm, False)
        if len(x) // self.sequences <= layer.to_qkv.out_channels // 3 // layer.heads:          # channels of a head
            y = self.short_attention(y, layer)
        else:
            y = self.long_full(y, layer) if isinstance(layer, Attention) else self.long_linear(y, layer)
        return x + (self.norm(y, layer.to_out[1], False) if isinstance(layer, LinearAttention) else y)

    def short_attention(self, y: Tensor, layer: Attention | LinearAttention) -> Tensor:
        """Both attentions with L x L numbers per head.

        The linear one is (softmax(q) softmax(k)^T) v.
        """
        def heads(t: Tensor) -> Tensor:
            return t.view(len(y) // self.sequences, self.sequences * layer.heads, -1).transpose(0, 1)      # (S*h, L, d)

        of_q, of_k, of_v = self.weights.layers[layer.to_qkv][0].chunk(3, dim=1)    # (C, h*d) each
        q, k, v = y @ of_q, y @ of_k, heads(y @ of_v)                              # (L*S, h*d) each
        if isinstance(layer, LinearAttention):
            q = q.unflatten(1, (layer.heads, -1)).softmax(dim=-1)
            k = k.view(len(y) // self.sequences, -1).softmax(dim=0)
            mixing = torch.bmm(heads(q), heads(k).transpose(1, 2)) * layer.scale   # (S*h, L, L)
        else:
            mixing = (torch.bmm(heads(q), heads(k).transpose(1, 2)) * layer.scale).softmax(dim=-1)
        y = torch.bmm(mixing, v).transpose(0, 1).reshape(len(y), -1)               # (L*S, h*d)
        return self.convolve(y, layer.to_out if isinstance(layer, Attention) else layer.to_out[0])

    def long_linear(self, y: Tensor, layer: LinearAttention) -> Tensor:
        """Linear attention as softmax(q) ((softmax(k)^T y) (W_v W_o)).

        Its values and the heads' outputs never exist per token.
        """
        h, S = layer.heads, self.sequences
        to_q, to_k, to_v = self.weights.layers[layer.to_qkv][0].chunk(3, dim=1)    # (C, h*d) each
        to_out, bias = self.weights.layers[layer.to_out[0]]                        # (h*d, C), (C,)
        q = (y @ to_q).unflatten(1, (h, -1)).softmax(dim=-1).view(-1, S, to_q.shape[1])        # (L, S, h*d)
        k = (y @ to_k).view(-1, S, to_k.shape[1]).softmax(dim=0)
        context = torch.bmm(k.permute(1, 2, 0), y.view(-1, S, y.shape[1]).transpose(0, 1))     # (S, h*d, C)
        context = context.unflatten(1, (h, -1)).transpose(0, 1).flatten(1, 2)      # (h, S * d, C)
        value = to_v.unflatten(1, (h, -1)).permute(1, 0, 2) @ to_out.unflatten(0, (h, -1))     # (h, C, C)
        mixing = torch.bmm(context, value * layer.scale).unflatten(1, (S, -1))     # (h, S, d, C)
        mixing = mixing.transpose(0, 1).flatten(1, 2)                              # (S, h*d, C)
        return torch.bmm(q.transpose(0, 1), mixing).transpose(0, 1).flatten(0, 1) + bias       # (L*S, C)

    def long_full(self, y: Tensor, layer: Attention) -> Tensor:
        qkv = self.convolve(y, layer.to_qkv)                                       # (L*S, 3 * h*d)
        q, k, v = qkv.view(-1, self.sequences, 3, layer.heads, qkv.shape[1] // 3 // layer.heads).permute(2, 1, 3, 0, 4)
        y = F.scaled_dot_product_attention(q, k, v).permute(2, 0, 1, 3)            # (L, S, h, d)
        return self.convolve(y.reshape(len(qkv), -1), layer.to_out)

    def up(self, x: Tensor, layer: nn.Module) -> Tensor:
        if isinstance(layer, nn.Sequential):       # nearest upsampling first
            x, layer = x.view(-1, self.sequences, x.shape[1]).repeat_interleave(2, dim=0).flatten(0, 1), layer[1]
        return self.convolve(x, layer)

    def level(self, depth: int, x: Tensor) -> Tensor:
        """Down, all that lies deeper, and up again; past the deepest level the middle of the U."""
        model = self.model
        if depth == len(model.downs):
            return self.resnet(self.attend(self.resnet(x, model.mid_block1), model.mid_attn), model.mid_block2)
        block1, block2, attention, down = model.downs[depth]
        x = skip1 = self.resnet(x, block1)
        x = skip2 = self.attend(self.resnet(x, block2), attention)
        x = self.level(depth + 1, self.convolve(x, down))
        block1, block2, attention, up = model.ups[len(model.ups) - 1 - depth]
        x = self.resnet(torch.cat([x, skip2], dim=1), block1)
        x = self.attend(self.resnet(torch.cat([x, skip1], dim=1), block2), attention)
        return self.up(x, up)


def convolve(x: Tensor, weight: Tensor, bias: Tensor | None, sequences: int, stride: int = 1) -> Tensor:
    """Convolve over the positions of x (L*S, C) with a weight as in `Weights` -> (L'*S, C')."""
    if weight.dim() == 4:
        image = x.view(-1, sequences, x.shape[1]).permute(2, 0, 1).unsqueeze(0)    # (1, C, L, S)
        y = F.conv2d(image, weight, bias, (stride, 1), ((weight.shape[2] - 1) // 2, 0))
        return y.squeeze(0).permute(1, 2, 0).flatten(0, 1)
    if stride == 2:                                # two positions side by side
        pairs = x.view(-1, 2, sequences, x.shape[1]).transpose(1, 2)               # (L/2, S, 2, C)
        x = pairs.reshape(len(x) // 2, -1)
    return ShortConvolution.apply(x, weight.contiguous(), bias, sequences)


def run(one: Pass, first: Tensor) -> Tensor:
    """`one(first)`; `FastDenoiser.compile` puts a compiled version in its place."""
    return one(first)


class FastDenoiser(Denoiser):
    """`Denoiser` with the same weights and values.

    L must be a multiple of 2 ** (number of multipliers - 1).
    """

    run = staticmethod(run)

    def forward(self, x: Tensor, step: Tensor) -> Tensor:
        """`x` (S, L, C) at the diffusion steps `step` (S,) -> the prediction (S, L, C)."""
        with self.one_dtype(x) as dtype:
            weights = Weights(self, step, dtype, x.shape[1] <= SHORT, each_step=False)
            first = (self.read(x, dtype) + self.init_conv.bias).to(dtype)          # (L*S, width)
            hidden = self.inside(first, weights, None, len(x), again=self.affordable(first) == 0)
            prediction = self.write(hidden, len(x)) + self.final_conv.bias
        if self.input_skip is None:
            return prediction
        return torch.addcmul(prediction, self.input_skip[step][:, None, None], x)

    def inside(self, first: Tensor, weights: Weights, row: int | None, sequences: int, again: bool) -> Tensor:
        """`Pass`; if `again`, only its input is kept, and going backward it is computed again."""
        one = Pass(self, weights, row, sequences)
        if again and torch.is_grad_enabled():
            return checkpoint(self.run, one, first, use_reentrant=False, preserve_rng_state=False)
        return self.run(one, first)

    def compile(self) -> None:
        """Compile the pass, which all steps share; what lies around it is a few operations."""
        self.run = torch.compile(run, dynamic=False)

    def affordable(self, first: Tensor) -> int:
        """How many passes over sequences like `first` (L*S, width) may keep their tensors."""
        return KEPT_BYTES // (KEPT_TENSORS * first.numel() * first.element_size())

    @contextmanager
    def one_dtype(self, x: Tensor):
        """Everything in the dtype that is yielded, the lower one under autocast, without casts."""
        device = x.device.type
        dtype = torch.get_autocast_dtype(device) if torch.is_autocast_enabled(device) else x.dtype
        with torch.autocast(device, enabled=False):
            yield dtype

    def read(self, x: Tensor, dtype: torch.dtype) -> Tensor:
        """The first convolution without its bias: (S, L, C) -> float32 (L*S, width)."""
        weight = self.init_conv.weight.unsqueeze(2).to(dtype).contiguous(memory_format=torch.channels_last)
        image = x.to(dtype).permute(2, 0, 1).unsqueeze(0)                          # (1, C, S, L), channels last
        y = F.conv2d(image, weight, None, 1, (0, self.init_conv.padding[0])).squeeze(0)        # (width, S, L)
        return y.permute(2, 1, 0).reshape(-1, len(y)).float()

    def write(self, hidden: Tensor, sequences: int) -> Tensor:
        """The last convolution without its bias: (L*S, width) -> float32 (S, L, C)."""
        hidden = hidden.view(-1, sequences, hidden.shape[-1]).transpose(0, 1).contiguous()
        return F.linear(hidden, self.final_conv.weight.squeeze(-1).to(hidden.dtype)).float()

    def reread(self, sequences: int, length: int, dtype: torch.dtype):
        """`hidden -> read(write(hidden) + the last bias)` as one small convolution."""
        first, last = self.init_conv, self.final_conv
        if length <= SHORT:
            weight = torch.einsum("ock,cj->jko", first.weight, last.weight.squeeze(-1)).to(dtype)  # (w, 7, w)
        else:
            weight = torch.einsum("ock,cj->ojk", first.weight, last.weight.squeeze(-1)).to(dtype).unsqueeze(-1)
            weight = weight.contiguous(memory_format=torch.channels_last)          # (w, w, 7, 1)
        bias = self.read(last.bias.expand(1, length, -1), dtype).repeat_interleave(sequences, dim=0)   # (L*S, width)
        return lambda hidden: convolve(hidden, weight, None, sequences).float() + bias


class FastDiffusion(FeatureDiffusion):
    """`FeatureDiffusion` in the `width` channels of a `FastDenoiser`, unless it clips."""

    def reverse(self, x: Tensor, steps: int, draw: Callable[[int], Tensor], clip: float | None = None,
                gradient_steps: int | None = None) -> Tensor:
        if clip is not None or not isinstance(self.model, FastDenoiser):
            return super().reverse(x, steps, draw, clip, gradient_steps)
        last = steps if gradient_steps is None else min(gradient_steps, steps)
        if last < steps and torch.is_grad_enabled():
            with torch.no_grad():
                state = self.span(x, steps, last, draw)
            kept = math.prod(a * c + d for a, _, c, d, _ in self.table[last:steps])
            x = kept * x + (state - kept * x.detach())             # the denoiser's outputs so far are constants
            steps = last
        return self.span(x, steps, 0, draw) if steps else x

    def span(self, x: Tensor, high: int, low: int, draw: Callable[[int], Tensor]) -> Tensor:
        """The state after the steps `high` - 1 down to `low`, from `x` (S, L, C).

        With f(x) = w x + write(h) + bias a step is x' = keep x + add (write(h) + bias) + s z, where
        add = b c and keep = a c + d + add w. So read(x') follows from read(x), h and read(z), and
        the last state is a weighted sum of x, of all h (written once) and of all z. The gradient
        passes through no sequence of C channels but the first.
        """
        model, steps = self.model, range(low, high)
        add = [b * c for _, b, c, _, _ in self.table]
        skip = x.new_zeros(high) if model.input_skip is None else model.input_skip
        keep = [a * c + d + b * c * skip[step] for step, (a, b, c, d, _) in enumerate(self.table[:high])]
        later = {low: x.new_ones(())}                              # what the steps below each one multiply by
        for step in steps:
            later[step + 1] = later[step] * keep[step]
        spread = {step: self.table[step][-1] for step in reversed(steps) if self.table[step][-1] > 0}
        S, L, _ = x.shape
        with model.one_dtype(x) as dtype:
            weights = Weights(model, torch.arange(low, high, device=x.device), dtype, L <= SHORT, each_step=True)
            state, noise_read = x * later[high], {}
            if spread:
                noise = torch.stack([draw(step) for step in spread])               # (n, S, L, C)
                state = state + torch.tensordot(torch.stack([s * later[step] for step, s in spread.items()]), noise, 1)
                reading = model.read(noise.flatten(0, 1), dtype).view(L, len(spread), S, -1)   # (L, n, S, width)
                noise_read = {step: part.flatten(0, 1) for step, part in zip(spread, reading.unbind(1), strict=True)}
            reread, y = model.reread(S, L, dtype), model.read(x, dtype)            # (L*S, width)
            hidden = torch.zeros_like(y)
            afforded = max(1, model.affordable(y))                 # recomputing one pass keeps one, too
            for step in reversed(steps):
                first, row = (y + model.init_conv.bias).to(dtype), step - low
                h = model.inside(first, weights, row, S, again=row >= afforded)    # (L*S, width)
                hidden = torch.addcmul(hidden, h.float(), add[step] * later[step])
                if step > low:
                    y = torch.add(y * keep[step], reread(h), alpha=add[step])
                    y = torch.add(y, noise_read[step], alpha=spread[step]) if step in spread else y
            bias = model.final_conv.bias * sum(add[step] * later[step] for step in steps)
            return state + model.write(hidden.to(dtype), S) + bias
