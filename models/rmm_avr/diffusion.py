"""The diffusion process over feature sequences (Eq. 5-7), a thin layer over
denoising-diffusion-pytorch.

Sequences are (S, L, C): S sequences of L positions with C channels. Steps count from 0 (least
noise) to T - 1.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal

import torch
from denoising_diffusion_pytorch import GaussianDiffusion1D, Unet1D
from denoising_diffusion_pytorch.denoising_diffusion_pytorch import sigmoid_beta_schedule
from denoising_diffusion_pytorch.denoising_diffusion_pytorch_1d import cosine_beta_schedule
from torch import Tensor, nn

Schedule = Literal["ddpm", "sigmoid", "cosine"]
Objective = Literal["noise", "x0", "v"]
Sampler = Literal["ancestral", "ddim"]

OBJECTIVES = {"noise": "pred_noise", "x0": "pred_x0", "v": "pred_v"}


def ddpm_beta_schedule(steps: int, first: float = 1e-4, last: float = 0.02) -> Tensor:
    """(T,) betas of DDPM (Ho et al., 2020, section 4): linear, here over T = `steps`, unscaled."""
    return torch.linspace(first, last, steps, dtype=torch.float64)


SCHEDULES = {"ddpm": ddpm_beta_schedule, "sigmoid": sigmoid_beta_schedule, "cosine": cosine_beta_schedule}


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
        if self.input_skip is None:
            return prediction
        return prediction + self.input_skip[step][:, None, None] * x


class FeatureDiffusion(GaussianDiffusion1D):
    """The library's process with a schedule of choice, and reverse steps that carry a gradient.

    The library samples without gradient and clamps in place; training through refinement (Eq. 8)
    needs neither.
    """

    def __init__(
        self, denoiser: nn.Module, length: int, betas: Tensor, objective: Objective, sampler: Sampler
    ) -> None:
        super().__init__(denoiser, seq_length=length, timesteps=len(betas), objective=OBJECTIVES[objective],
                         auto_normalize=False, channel_first=False)
        self.sampler = sampler
        self.set_betas(betas)

    def set_betas(self, betas: Tensor) -> None:
        """Every schedule quantity, from the betas (T,) (Eq. 5; Ho et al., 2020, Eq. 4 and 7)."""
        bar = torch.cumprod(1 - betas, dim=0)
        before = torch.cat([torch.ones_like(bar[:1]), bar[:-1]])
        variance = betas * (1 - before) / (1 - bar)
        snr = bar / (1 - bar)
        values = {
            "betas": betas, "alphas_cumprod": bar, "alphas_cumprod_prev": before,
            "sqrt_alphas_cumprod": bar.sqrt(), "sqrt_one_minus_alphas_cumprod": (1 - bar).sqrt(),
            "log_one_minus_alphas_cumprod": (1 - bar).log(),
            "sqrt_recip_alphas_cumprod": (1 / bar).sqrt(), "sqrt_recipm1_alphas_cumprod": (1 / bar - 1).sqrt(),
            "posterior_variance": variance, "posterior_log_variance_clipped": variance.clamp_min(1e-20).log(),
            "posterior_mean_coef1": betas * before.sqrt() / (1 - bar),
            "posterior_mean_coef2": (1 - before) * (1 - betas).sqrt() / (1 - bar),
            "loss_weight": {"pred_noise": torch.ones_like(snr), "pred_x0": snr, "pred_v": bar}[self.objective],
        }
        for name, value in values.items():
            getattr(self, name).copy_(value)
        self.table = self.reverse_table()

    def training_error(self, clean: Tensor) -> tuple[Tensor, Tensor]:
        """Squared error of the prediction (Eq. 7) at one random step per sequence.

        `clean` (S, L, C) -> error (S, L), the mean over the channels, and the drawn steps (S,).
        """
        step = torch.randint(0, self.num_timesteps, clean.shape[:1], device=clean.device)
        noise = torch.randn_like(clean)
        prediction = self.model(self.q_sample(clean, step, noise), step)
        if self.objective == "pred_noise":
            target = noise
        elif self.objective == "pred_x0":
            target = clean
        else:
            target = self.predict_v(clean, step, noise)
        return (prediction.float() - target).square().mean(dim=-1), step           # (S, L), (S,)

    def reverse_table(self) -> list[tuple[float, float, float, float, float]]:
        """The numbers a, b, c, d, s of every step: x0 = a x + b f(x), x_{t-1} = c x0 + d x + s z.

        f is the denoiser, z unit noise. `ancestral` draws from the posterior of Ho et al. (2020,
        Eq. 7); `ddim` is Song et al. (2021, Eq. 12) with sigma = 0.
        """
        root, root1 = self.sqrt_recip_alphas_cumprod, self.sqrt_recipm1_alphas_cumprod
        zero = torch.zeros_like(root)
        a, b = {
            "pred_noise": (root, -root1),
            "pred_x0": (zero, zero + 1),
            "pred_v": (self.sqrt_alphas_cumprod, -self.sqrt_one_minus_alphas_cumprod),
        }[self.objective]
        if self.sampler == "ddim":
            d = (1 - self.alphas_cumprod_prev).sqrt() * root / root1
            c, s = self.alphas_cumprod_prev.sqrt() - d / root, zero
        else:
            c, d, s = self.posterior_mean_coef1, self.posterior_mean_coef2, self.posterior_variance.sqrt()
        return torch.stack([a, b, c, d, s], dim=1).tolist()

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


def best_linear_guess(betas: Tensor, objective: Objective) -> Tensor:
    """(T,) the w_t for which w_t x_t is nearest to the target if clean features are white."""
    bar = torch.cumprod(1 - betas, dim=0)
    guess = {"noise": (1 - bar).sqrt(), "x0": bar.sqrt(), "v": torch.zeros_like(bar)}
    return guess[objective].float()
