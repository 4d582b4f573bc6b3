"""What `diffusion.py` computes, in less time and memory; nothing here changes a value. Skip it on a first reading.

Training differentiates through every reverse step (Eq. 8), so a step's kernels, reads and writes are paid T times:
- a reverse step is linear but for the inside of the U-Net. `FastDiffusion` therefore stays in the `width` channels of
  that inside and leaves the C channels of the sequence once, at the end;
- inside, rows are ordered by position, then by sequence, (L*S, C): a convolution is one matrix product per tap on whole
  slabs, nothing is padded or reordered, and weights are laid out once for all steps;
- all sequences are at the same step, so its embedding conditions each block once, not once per sequence;
- norm, scale-shift and SiLU are one function that keeps one tensor;
- linear attention multiplies positions with positions where a sequence is short, and keeps its values and heads off
  the tokens where it is long;
- where the kept tensors of all steps would be large, most are computed again in the backward pass.
"""

from __future__ import annotations

import math
from contextlib import contextmanager

import torch
from denoising_diffusion_pytorch.denoising_diffusion_pytorch_1d import Attention, LinearAttention, ResnetBlock, RMSNorm
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils.checkpoint import checkpoint

from models.rmm_avr.diffusion import Denoiser, FeatureDiffusion
from models.rmm_avr.operations import Convolve, NormAct, Read

KEPT_TENSORS = 160           # of L x S x width numbers that autograd keeps of one pass through the U-Net, about
KEPT_BYTES = 2 ** 30         # of all passes together; above it, they are computed again


class Weights:
    """The weights inside a denoiser, for some passes: in one dtype, laid out for matrix products, conditioned on the steps.

    `taps`: of a convolution (C, K * C') and the bias. `gains`: of a norm (C,). `conditioned`: weight and bias of the first
    norm of a block, (steps, C) each, or with `each_step` a list of (C,) pairs.
    """

    def __init__(self, model: Denoiser, step: Tensor, dtype: torch.dtype, each_step: bool) -> None:
        time = F.silu(model.time_mlp(step)).to(dtype)                              # (steps, 4 * width)
        inside = [module for module in model.modules() if module not in (model.init_conv, model.final_conv)]
        convolutions = [module for module in inside if isinstance(module, nn.Conv1d)]
        self.taps = {layer: (taps_of(layer).to(dtype), None if layer.bias is None else layer.bias.to(dtype))
                     for layer in convolutions}
        self.gains = {norm: norm.g.flatten().to(dtype) for norm in inside if isinstance(norm, RMSNorm)}
        self.conditioned = {}
        for block in (module for module in inside if isinstance(module, ResnetBlock)):
            linear = block.mlp[1]
            scale, shift = F.linear(time, linear.weight.to(dtype), linear.bias.to(dtype)).chunk(2, dim=-1)
            weight = self.gains[block.block1.norm] * (scale + 1)
            pairs = zip(weight.unbind(), shift.unbind(), strict=True) if each_step else None
            self.conditioned[block] = (weight, shift) if pairs is None else list(pairs)


def taps_of(layer: nn.Conv1d) -> Tensor:
    """(C, K * C'); a kernel of 4 with stride 2 as a kernel of 3 over pairs of positions, (2C, 3 * C')."""
    if layer.stride == (1,):
        return layer.weight.permute(1, 2, 0).flatten(1)
    first, second, third, fourth = layer.weight.permute(2, 1, 0).unbind()          # (C, C') each
    nothing = torch.zeros_like(first)
    before, own, after = torch.cat([nothing, first]), torch.cat([second, third]), torch.cat([fourth, nothing])
    return torch.cat([before, own, after], dim=1)


class Pass:
    """One pass through the inside of the U-Net. `row`: the step among those of `weights`; None: one per sequence."""

    def __init__(self, model: FastDenoiser, weights: Weights, row: int | None, sequences: int, again: bool) -> None:
        self.model, self.weights, self.row, self.sequences = model, weights, row, sequences
        self.call = recomputed if again and torch.is_grad_enabled() and not torch.compiler.is_compiling() else kept

    def __call__(self, first: Tensor) -> Tensor:
        """(L*S, width) after the first convolution -> (L*S, width) before the last."""
        x = self.level(0, first, self.call)
        return self.resnet(torch.cat([x, first], dim=1), self.model.final_res_block, self.call)

    def convolve(self, x: Tensor, layer: nn.Conv1d) -> Tensor:
        (weight, bias), kernel = self.weights.taps[layer], layer.kernel_size[0]
        if kernel == 1:
            return x @ weight if bias is None else torch.addmm(bias, x, weight)
        return Convolve.apply(x, weight, bias, kernel, self.sequences)

    def conditioned(self, block: ResnetBlock) -> tuple[Tensor, Tensor]:
        found = self.weights.conditioned[block]
        return found if self.row is None else found[self.row]

    def norm(self, x: Tensor, norm: nn.Module, activate: bool = True) -> Tensor:
        return NormAct.apply(x, self.weights.gains[norm], None, activate)

    def resnet(self, x: Tensor, block: ResnetBlock, call) -> Tensor:
        """Two convolution blocks, the first one conditioned on the step, and a residual."""
        first, second = block.block1, block.block2

        def between(y: Tensor) -> Tensor:
            return self.convolve(NormAct.apply(y, *self.conditioned(block), True), second.proj)

        h = self.norm(call(between, self.convolve(x, first.proj)), second.norm)
        return h + (x if isinstance(block.res_conv, nn.Identity) else self.convolve(x, block.res_conv))

    def attend(self, x: Tensor, residual: nn.Module, call) -> Tensor:
        """Pre-norm attention with residual, with the weights of the library's wrappers around it."""
        layer, norm = residual.fn.fn, residual.fn.norm
        length = len(x) // self.sequences
        if length > layer.to_qkv.out_channels // 3 // layer.heads:                 # more positions than channels a head
            return call(self.long_full if isinstance(layer, Attention) else self.long_linear, x, layer, norm)
        return call(self.short_attention, x, layer, norm)

    def short_attention(self, x: Tensor, layer: Attention | LinearAttention, norm: nn.Module) -> Tensor:
        """Both attentions with L x L numbers per head; the linear one is (softmax(q) softmax(k)^T) v."""
        def heads(t: Tensor) -> Tensor:
            return t.view(len(x) // self.sequences, self.sequences * layer.heads, -1).transpose(0, 1)      # (S*h, L, d)

        of_q, of_k, of_v = self.weights.taps[layer.to_qkv][0].chunk(3, dim=1)      # (C, h*d) each
        y = self.norm(x, norm, False)
        q, k, v = y @ of_q, y @ of_k, heads(y @ of_v)                              # (L*S, h*d) each
        if isinstance(layer, LinearAttention):
            q = q.unflatten(1, (layer.heads, -1)).softmax(dim=-1)
            k = k.view(len(x) // self.sequences, -1).softmax(dim=0)
            mixing = torch.bmm(heads(q), heads(k).transpose(1, 2)) * layer.scale   # (S*h, L, L)
        else:
            mixing = (torch.bmm(heads(q), heads(k).transpose(1, 2)) * layer.scale).softmax(dim=-1)
        y = torch.bmm(mixing, v).transpose(0, 1).reshape(len(x), -1)               # (L*S, h*d)
        if isinstance(layer, Attention):
            return x + self.convolve(y, layer.to_out)
        return x + self.norm(self.convolve(y, layer.to_out[0]), layer.to_out[1], False)

    def long_linear(self, x: Tensor, layer: LinearAttention, norm: nn.Module) -> Tensor:
        """Linear attention as softmax(q) ((softmax(k)^T x) (W_v W_o)): values and heads' outputs never exist per token."""
        h, S = layer.heads, self.sequences
        to_q, to_k, to_v = self.weights.taps[layer.to_qkv][0].chunk(3, dim=1)      # (C, h*d) each
        to_out, bias = self.weights.taps[layer.to_out[0]]                          # (h*d, C), (C,)
        y = self.norm(x, norm, False)                                              # (L*S, C)
        q = (y @ to_q).unflatten(1, (h, -1)).softmax(dim=-1).view(-1, S, to_q.shape[1])        # (L, S, h*d)
        k = (y @ to_k).view(-1, S, to_k.shape[1]).softmax(dim=0)
        context = torch.bmm(k.permute(1, 2, 0), y.view(-1, S, x.shape[1]).transpose(0, 1))     # (S, h*d, C)
        context = context.unflatten(1, (h, -1)).transpose(0, 1).flatten(1, 2)      # (h, S * d, C)
        value = to_v.unflatten(1, (h, -1)).permute(1, 0, 2) @ to_out.unflatten(0, (h, -1))     # (h, C, C)
        mixing = torch.bmm(context, value * layer.scale).unflatten(1, (S, -1))     # (h, S, d, C)
        mixing = mixing.transpose(0, 1).flatten(1, 2)                              # (S, h*d, C)
        y = torch.bmm(q.transpose(0, 1), mixing).transpose(0, 1).flatten(0, 1) + bias          # (L*S, C)
        return x + self.norm(y, layer.to_out[1], False)

    def long_full(self, x: Tensor, layer: Attention, norm: nn.Module) -> Tensor:
        qkv = self.convolve(self.norm(x, norm, False), layer.to_qkv)               # (L*S, 3 * h*d)
        q, k, v = qkv.view(-1, self.sequences, 3, layer.heads, qkv.shape[1] // 3 // layer.heads).permute(2, 1, 3, 0, 4)
        y = F.scaled_dot_product_attention(q, k, v)                                # (S, h, L, d)
        return x + self.convolve(y.permute(2, 0, 1, 3).reshape(len(x), -1), layer.to_out)

    def down(self, x: Tensor, layer: nn.Conv1d) -> Tensor:
        """The next level's width and, but for the last level, half of the positions."""
        if layer.stride == (1,):
            return self.convolve(x, layer)
        pairs = x.view(-1, 2, self.sequences, x.shape[1]).transpose(1, 2).reshape(len(x) // 2, -1)     # (L/2 * S, 2C)
        return Convolve.apply(pairs, *self.weights.taps[layer], 3, self.sequences)

    def up(self, x: Tensor, layer: nn.Module) -> Tensor:
        if isinstance(layer, nn.Sequential):       # nearest upsampling first
            x, layer = x.view(-1, self.sequences, x.shape[1]).repeat_interleave(2, dim=0).flatten(0, 1), layer[1]
        return self.convolve(x, layer)

    def level(self, depth: int, x: Tensor, call) -> Tensor:
        """Down, all that lies deeper, and up again; past the deepest level the middle of the U.

        What lies below the first level is computed again as a whole, so nothing within it is.
        """
        model = self.model
        if depth == len(model.downs):
            x = self.attend(self.resnet(x, model.mid_block1, kept), model.mid_attn, kept)
            return self.resnet(x, model.mid_block2, kept)
        block1, block2, attention, down = model.downs[depth]
        x = skip1 = self.resnet(x, block1, call)
        x = skip2 = self.attend(self.resnet(x, block2, call), attention, call)
        x = call(lambda y: self.level(depth + 1, y, kept), self.down(x, down))
        block1, block2, attention, up = model.ups[len(model.ups) - 1 - depth]
        x = self.resnet(torch.cat([x, skip2], dim=1), block1, call)
        x = self.attend(self.resnet(torch.cat([x, skip1], dim=1), block2, call), attention, call)
        return self.up(x, up)


def recomputed(function, *inputs):
    """`function(*inputs)`, of which only the inputs are kept; what it saves is computed again in the backward pass."""
    return checkpoint(function, *inputs, use_reentrant=False, preserve_rng_state=False)


def kept(function, *inputs):
    return function(*inputs)


class FastDenoiser(Denoiser):
    """`Denoiser` with the same weights and values. L must be a multiple of 2 ** (number of multipliers - 1)."""

    def forward(self, x: Tensor, step: Tensor) -> Tensor:
        """`x` (S, L, C) at the diffusion steps `step` (S,) -> the prediction (S, L, C)."""
        with self.one_dtype(x) as dtype:
            weights = Weights(self, step, dtype, each_step=False)
            first = (self.read(x) + self.init_conv.bias).to(dtype)                 # (L*S, width)
            hidden = Pass(self, weights, None, len(x), self.large(len(first), 1))(first)
            prediction = self.write(hidden, len(x)) + self.final_conv.bias
        if self.input_skip is None:
            return prediction
        return torch.addcmul(prediction, self.input_skip[step][:, None, None], x)

    def large(self, tokens: int, passes: int) -> bool:
        """Whether what autograd keeps of so many passes over so many tokens is better computed again."""
        return 4 * KEPT_TENSORS * self.init_conv.out_channels * tokens * passes > KEPT_BYTES

    @contextmanager
    def one_dtype(self, x: Tensor):
        """Everything in the dtype that is yielded, the lower one under autocast, without casts in between."""
        device = x.device.type
        dtype = torch.get_autocast_dtype(device) if torch.is_autocast_enabled(device) else x.dtype
        with torch.autocast(device, enabled=False):
            self.dtype = dtype
            yield dtype

    def read(self, x: Tensor) -> Tensor:
        """The first convolution without its bias: (S, L, C) -> float32 (L*S, width)."""
        weight = self.init_conv.weight.permute(1, 2, 0).flatten(1).to(self.dtype)  # (C, 7 * width)
        rows = x.to(self.dtype).transpose(0, 1).reshape(-1, x.shape[-1])           # (L*S, C)
        return Read.apply(rows, weight, self.init_conv.kernel_size[0], len(x)).float()

    def write(self, hidden: Tensor, sequences: int) -> Tensor:
        """The last convolution without its bias: (L*S, width) -> float32 (S, L, C)."""
        weight = self.final_conv.weight.squeeze(-1).to(self.dtype)
        per_sequence = hidden.to(self.dtype).view(-1, sequences, hidden.shape[-1]).transpose(0, 1)
        return F.linear(per_sequence.contiguous(), weight).float()

    def reread(self, sequences: int, length: int):
        """`hidden -> read(write(hidden) + the last bias)` as one small convolution."""
        first, last = self.init_conv, self.final_conv
        weight = torch.einsum("ock,cj->jko", first.weight, last.weight.squeeze(-1)).flatten(1)     # (width, 7 * width)
        bias = self.read(last.bias.expand(1, length, -1)).repeat_interleave(sequences, dim=0)      # (L*S, width)
        kernel = first.kernel_size[0]
        return lambda hidden: Convolve.apply(hidden, weight.to(hidden.dtype), None, kernel, sequences).float() + bias


class FastDiffusion(FeatureDiffusion):
    """`FeatureDiffusion` that stays in the `width` channels of a `FastDenoiser` while nothing is clipped."""

    def reverse(self, x: Tensor, steps: int, draw, clip: float | None = None,
                gradient_steps: int | None = None) -> Tensor:
        if clip is not None or not isinstance(self.model, FastDenoiser):
            return super().reverse(x, steps, draw, clip, gradient_steps)
        last = steps if gradient_steps is None else min(gradient_steps, steps)
        if last < steps and torch.is_grad_enabled():
            with torch.no_grad():
                state = self.span(x, steps, last, draw)
            kept = math.prod(a * c + d for a, _, c, d, _ in self.reverse_table()[last:steps])
            x = kept * x + (state - kept * x.detach())             # the denoiser's outputs so far are constants
            steps = last
        return self.span(x, steps, 0, draw) if steps else x

    def span(self, x: Tensor, high: int, low: int, draw) -> Tensor:
        """The state after the steps `high` - 1 down to `low`, from `x` (S, L, C).

        With f(x) = w x + write(h) + bias a step is x' = (a c + d + b c w) x + b c (write(h) + bias) + s z. So read(x')
        follows from read(x), h and read(z), and the last state is a weighted sum of x, of all h (written once) and of
        all z. The gradient passes through no sequence of C channels but the first.
        """
        a, b, c, d, s = torch.tensor(self.reverse_table()[low:high], device=x.device).unbind(1)    # (n,) each
        add, keep = b * c, a * c + d
        if self.model.input_skip is not None:
            keep = keep + add * self.model.input_skip[low:high]
        ones = torch.ones_like(keep[:1])
        later = torch.cat([ones, keep.cumprod(0)])                 # what the steps below each one multiply by
        noisy = [i for i in reversed(range(high - low)) if float(s[i]) > 0]
        with self.model.one_dtype(x) as dtype:
            hidden, noise = self.inner_loop(x, list(range(low, high)), (add, keep, s), noisy, draw, dtype)
            written = self.model.write(torch.tensordot(add * later[:-1], hidden, dims=1), len(x))      # (S, L, C)
        state = x * later[-1] + written + self.model.final_conv.bias * (add * later[:-1]).sum()
        return state if noise is None else state + torch.tensordot((s * later[:-1])[noisy], noise, dims=1)

    def inner_loop(self, x: Tensor, steps: list[int], table: tuple[Tensor, ...], noisy: list[int], draw,
                   dtype: torch.dtype) -> tuple[Tensor, Tensor | None]:
        """All inner outputs h (n, L*S, width), in the order of `steps`, and the noise (m, S, L, C) that was drawn."""
        model, (S, L, _) = self.model, x.shape
        add, keep, s = (part.unbind() for part in table)
        noise, noise_read = None, {}
        if noisy:
            noise = torch.stack([draw(steps[i]) for i in noisy])                   # (m, S, L, C)
            reading = model.read(noise.flatten(0, 1)).view(L, len(noisy), S, -1)   # (L, m, S, width)
            noise_read = {i: part.flatten(0, 1) for i, part in zip(noisy, reading.unbind(1), strict=True)}
        weights = Weights(model, torch.tensor(steps, device=x.device), dtype, each_step=True)
        y, hidden, reread = model.read(x), [None] * len(steps), model.reread(S, L)
        again = model.large(S * L, len(steps))
        for i in reversed(range(len(steps))):
            h = hidden[i] = Pass(model, weights, i, S, again)((y + model.init_conv.bias).to(dtype))
            if i > 0:
                y = y * keep[i] + reread(h) * add[i]
                y = y + noise_read[i] * s[i] if i in noise_read else y
        return torch.stack(hidden).float(), noise
