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

    def clean_coefficients(self, t: int) -> tuple[float, float]:
        """The estimated clean feature is the first times x_t plus the second times the denoiser's answer."""
        bar = float(self.alphas_cumprod[t])
        signal, noise = bar ** 0.5, (1 - bar) ** 0.5
        return {"pred_noise": (1 / signal, -noise / signal), "pred_x0": (0.0, 1.0), "pred_v": (signal, -noise)}[
            self.objective]

    def reverse_step(self, x: Tensor, t: int, noise: Tensor | None, clip: float | None) -> Tensor:
        """One step of Eq. 6: x_{t-1} from `x` = x_t (S, C, L); `noise` None at the last step, t = 0.

        Without clipping the step is linear in x_t, the denoiser's answer and the noise, so the three coefficients of
        the library's `model_predictions` and `q_posterior` are multiplied out and the sequence is read once.
        """
        answer = self.model(x, torch.full(x.shape[:1], t, device=x.device, dtype=torch.long)).to(x.dtype)
        of_x, of_answer = self.clean_coefficients(t)
        of_clean, keep = float(self.posterior_mean_coef1[t]), float(self.posterior_mean_coef2[t])
        if clip is None:
            mean = torch.add((of_clean * of_x + keep) * x, answer, alpha=of_clean * of_answer)
        else:
            clean = torch.add(of_x * x, answer, alpha=of_answer).clamp(-clip, clip)
            mean = torch.add(keep * x, clean, alpha=of_clean)
        return mean if noise is None else mean.add_(noise, alpha=float(self.posterior_variance[t]) ** 0.5)
