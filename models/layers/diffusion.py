"""The diffusion process over feature sequences (Eq. 5-7), a thin layer over denoising-diffusion-pytorch."""

from __future__ import annotations

from typing import Literal

import torch
from denoising_diffusion_pytorch import GaussianDiffusion1D
from denoising_diffusion_pytorch.denoising_diffusion_pytorch import sigmoid_beta_schedule
from denoising_diffusion_pytorch.denoising_diffusion_pytorch_1d import linear_beta_schedule
from torch import Tensor, nn

Schedule = Literal["sigmoid", "cosine", "linear"]
OBJECTIVES = {"noise": "pred_noise", "x0": "pred_x0", "v": "pred_v"}


class FeatureDiffusion(GaussianDiffusion1D):
    """The library's 1D process with the sigmoid schedule of its 2D one and reverse steps that carry a gradient.

    The library samples without gradient and clamps in place; training through refinement (Eq. 8) needs neither.
    """

    def __init__(self, denoiser: nn.Module, length: int, steps: int, schedule: Schedule, objective: str) -> None:
        if schedule == "linear" and float(linear_beta_schedule(steps).max()) >= 1:
            raise ValueError(f"avr.schedule=linear gives beta > 1 with avr.steps={steps}; use at least 21 steps, or "
                             "sigmoid or cosine")
        super().__init__(denoiser, seq_length=length, timesteps=steps, objective=OBJECTIVES[objective],
                         beta_schedule="linear" if schedule == "linear" else "cosine", auto_normalize=False)
        if schedule == "sigmoid":
            self.set_betas(sigmoid_beta_schedule(steps))

    def set_betas(self, betas: Tensor) -> None:
        """Every schedule quantity that the process uses, from beta_t (Eq. 5; Ho et al., 2020, Eq. 4 and 7)."""
        alphas = 1 - betas
        bar = torch.cumprod(alphas, dim=0)
        before = torch.cat([torch.ones_like(bar[:1]), bar[:-1]])
        variance = betas * (1 - before) / (1 - bar)
        values = {
            "betas": betas, "alphas_cumprod": bar, "alphas_cumprod_prev": before,
            "sqrt_alphas_cumprod": bar.sqrt(), "sqrt_one_minus_alphas_cumprod": (1 - bar).sqrt(),
            "log_one_minus_alphas_cumprod": (1 - bar).log(),
            "sqrt_recip_alphas_cumprod": (1 / bar).sqrt(), "sqrt_recipm1_alphas_cumprod": (1 / bar - 1).sqrt(),
            "posterior_variance": variance, "posterior_log_variance_clipped": variance.clamp_min(1e-20).log(),
            "posterior_mean_coef1": betas * before.sqrt() / (1 - bar),
            "posterior_mean_coef2": (1 - before) * alphas.sqrt() / (1 - bar),
        }
        for name, value in values.items():
            getattr(self, name).copy_(value)
        snr = bar / (1 - bar)
        weight = {"pred_noise": torch.ones_like(snr), "pred_x0": snr, "pred_v": bar}[self.objective]
        self.loss_weight.copy_(weight)

    def reverse_step(self, x: Tensor, t: int, noise: Tensor | None, clip: float | None) -> Tensor:
        """One step of Eq. 6: x_{t-1} from `x` = x_t (S, C, L); `noise` None at the last step, t = 0."""
        steps = torch.full(x.shape[:1], t, device=x.device, dtype=torch.long)
        start = self.model_predictions(x, steps).pred_x_start.to(x.dtype)
        if clip is not None:
            start = start.clamp(-clip, clip)
        mean, _, log_variance = self.q_posterior(start, x, steps)
        return mean if noise is None else mean + (0.5 * log_variance).exp() * noise
