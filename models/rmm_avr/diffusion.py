"""The diffusion process over feature sequences (Eq. 5-7), around the U-Net and the schedules of
denoising-diffusion-pytorch. Sequences are (S, L, C): S sequences of L positions with C channels.
Steps count from 0 (least noise) to T - 1.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal

import torch
from denoising_diffusion_pytorch import Unet1D
from denoising_diffusion_pytorch.denoising_diffusion_pytorch import sigmoid_beta_schedule
from denoising_diffusion_pytorch.denoising_diffusion_pytorch_1d import cosine_beta_schedule
from torch import Tensor, nn

Schedule = Literal["ddpm", "sigmoid", "cosine"]
Objective = Literal["noise", "x0", "v"]
Sampler = Literal["ancestral", "ddim"]


def make_betas(schedule: Schedule, steps: int, ends: tuple[float, float] = (1e-4, 0.02)) -> Tensor:
    """(T,) in float64. `ddpm`: linear between `ends` (Ho et al., 2020, section 4), unscaled."""
    if schedule == "ddpm":
        return torch.linspace(*ends, steps, dtype=torch.float64)
    return {"sigmoid": sigmoid_beta_schedule, "cosine": cosine_beta_schedule}[schedule](steps)


class Denoiser(Unet1D):
    """The library's 1D U-Net on sequences (S, L, C), plus its input times one learned weight per
    step.

    The last layer has `width` input channels, fewer than C. Alone it cannot predict white noise of
    C channels: its squared error stays above 1 - width / C. With the input beside it that bound is
    gone. `input_skip` (T,) holds the initial weights; None leaves the input out.
    """

    def __init__(self, width: int, channels: int, multipliers: tuple[int, ...], input_skip: Tensor | None) -> None:
        super().__init__(width, channels=channels, dim_mults=tuple(multipliers))
        self.input_skip = None if input_skip is None else nn.Parameter(input_skip)

    def forward(self, x: Tensor, step: Tensor) -> Tensor:
        """`x` (S, L, C) at the diffusion steps `step` (S,) -> the prediction (S, L, C)."""
        prediction = super().forward(x.transpose(1, 2), step).transpose(1, 2)
        return prediction if self.input_skip is None else prediction + self.input_skip[step][:, None, None] * x


class FeatureDiffusion(nn.Module):
    """Noising, the loss, and reverse steps that carry gradient, which Eq. 8 trains through."""

    def __init__(self, denoiser: nn.Module, betas: Tensor, objective: Objective, sampler: Sampler) -> None:
        super().__init__()
        self.model, self.objective = denoiser, objective
        self.table = reverse_table(betas, objective, sampler)
        bar = torch.cumprod(1 - betas, dim=0)                                      # (T,)
        for name, values in {"alpha_bar": bar, "signal_scale": bar.sqrt(), "noise_scale": (1 - bar).sqrt(),
                             "loss_weight": torch.ones_like(bar)}.items():
            self.register_buffer(name, values.float(), persistent=False)           # follows from the options

    def noised(self, clean: Tensor, step: Tensor, noise: Tensor) -> Tensor:
        """`clean` (S, L, C) at the steps `step` (S,), Eq. 5."""
        return self.signal_scale[step][:, None, None] * clean + self.noise_scale[step][:, None, None] * noise

    def training_error(self, clean: Tensor) -> Tensor:
        """Squared error of the prediction (Eq. 7), (S, L), at one random step per sequence.

        `clean` (S, L, C); the error is the mean over the channels, times the step's `loss_weight`.
        """
        step = torch.randint(0, len(self.table), clean.shape[:1], device=clean.device)
        noise = torch.randn_like(clean)
        prediction = self.model(self.noised(clean, step, noise), step)
        if self.objective == "noise":
            target = noise
        elif self.objective == "x0":
            target = clean
        else:
            target = self.signal_scale[step][:, None, None] * noise - self.noise_scale[step][:, None, None] * clean
        return (prediction.float() - target).square().mean(dim=-1) * self.loss_weight[step][:, None]

    def reverse(self, x: Tensor, steps: int, draw: Callable[[int], Tensor], clip: float | None = None,
                gradient_steps: int | None = None) -> Tensor:
        """The reverse process (Eq. 6) of the last `steps` steps, from the state `x` to the clean
        feature, (S, L, C).

        `draw(step)` gives unit noise of the shape of `x`; `clip` bounds the estimate of the clean
        feature. The denoiser's outputs carry gradient in the last `gradient_steps` steps (DRaFT-K,
        Clark et al., ICLR 2024) and are constants in those before; None: in all.
        """
        carrying = torch.is_grad_enabled()
        for step in reversed(range(steps)):
            a, b, c, d, s = self.table[step]
            with torch.set_grad_enabled(carrying and (gradient_steps is None or step < gradient_steps)):
                prediction = self.model(x, torch.full(x.shape[:1], step, device=x.device))
            clean = a * x + b * prediction
            clean = clean if clip is None else clean.clamp(-clip, clip)
            x = c * clean + d * x
            x = x + s * draw(step) if s > 0 else x
        return x


def reverse_table(
    betas: Tensor, objective: Objective, sampler: Sampler
) -> list[tuple[float, float, float, float, float]]:
    """The numbers a, b, c, d, s of every step: x0 = a x + b f(x), x_{t-1} = c x0 + d x + s z.

    f is the denoiser, z unit noise. `ancestral` draws from the posterior of Ho et al. (2020, Eq.
    7); `ddim` is Song et al. (2021, Eq. 12) with sigma = 0.
    """
    bar = torch.cumprod(1 - betas, dim=0)
    before = torch.cat([torch.ones_like(bar[:1]), bar[:-1]])
    a, b = {
        "noise": ((1 / bar).sqrt(), -(1 / bar - 1).sqrt()),
        "x0": (torch.zeros_like(bar), torch.ones_like(bar)),
        "v": (bar.sqrt(), -(1 - bar).sqrt()),
    }[objective]
    if sampler == "ddim":
        d = ((1 - before) / (1 - bar)).sqrt()
        c, variance = before.sqrt() - d * bar.sqrt(), torch.zeros_like(bar)
    else:
        c, d = betas * before.sqrt() / (1 - bar), (1 - before) * (1 - betas).sqrt() / (1 - bar)
        variance = betas * (1 - before) / (1 - bar)
    return torch.stack([a, b, c, d, variance.float().sqrt()], dim=1).float().tolist()


def best_linear_guess(betas: Tensor, objective: Objective) -> Tensor:
    """(T,) the w_t for which w_t x_t is nearest to the target if clean features are white."""
    bar = torch.cumprod(1 - betas, dim=0)
    guess = {"noise": (1 - bar).sqrt(), "x0": bar.sqrt(), "v": torch.zeros_like(bar)}
    return guess[objective].float()
