"""The diffusion process over feature sequences (Eq. 5-7), a thin layer over denoising-diffusion-pytorch."""

from __future__ import annotations

import math
from typing import Literal

import torch
from denoising_diffusion_pytorch import GaussianDiffusion1D
from denoising_diffusion_pytorch.denoising_diffusion_pytorch import sigmoid_beta_schedule
from denoising_diffusion_pytorch.denoising_diffusion_pytorch_1d import cosine_beta_schedule, linear_beta_schedule
from torch import Tensor, nn

from models.layers.denoiser import Denoiser

Schedule = Literal["sigmoid", "cosine", "linear"]
Objective = Literal["noise", "x0", "v"]
Sampler = Literal["ancestral", "ddim"]

SCHEDULES = {"sigmoid": sigmoid_beta_schedule, "cosine": cosine_beta_schedule, "linear": linear_beta_schedule}
OBJECTIVES = {"noise": "pred_noise", "x0": "pred_x0", "v": "pred_v"}


class FeatureDiffusion(GaussianDiffusion1D):
    """The library's 1D process, with the sigmoid schedule of its 2D one, and reverse steps that carry a gradient.

    The library samples without gradient and clamps in place; training through refinement (Eq. 8) needs neither.
    Sequences are (S, L, C), steps count from 0 (least noise) to `steps` - 1.
    """

    def __init__(
        self, denoiser: nn.Module, length: int, steps: int, schedule: Schedule, objective: Objective, sampler: Sampler
    ) -> None:
        betas = SCHEDULES[schedule](steps)
        if float(betas.max()) >= 1:
            raise ValueError(f"avr.schedule={schedule} gives beta_T = {float(betas.max()):.2f}, not below 1, with "
                             f"avr.steps={steps}; use at least 21 steps, or the schedule sigmoid or cosine")
        super().__init__(denoiser, seq_length=length, timesteps=steps, objective=OBJECTIVES[objective],
                         auto_normalize=False, channel_first=False)
        self.sampler = sampler
        self.set_betas(betas)

    def set_betas(self, betas: Tensor) -> None:
        """Every schedule quantity of the process, from beta_t (Eq. 5; Ho et al., 2020, Eq. 4 and 7)."""
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

    def training_error(self, clean: Tensor) -> tuple[Tensor, Tensor]:
        """Squared error of the prediction (Eq. 7) at one random step per sequence, averaged over the channels.

        `clean` (S, L, C) -> error (S, L), and the drawn steps' weight (S,) that makes each objective equal to noise
        prediction: 1 for noise, the signal-to-noise ratio for x0, alpha-bar for v.
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
        return (prediction.float() - target).square().mean(dim=-1), self.loss_weight[step]

    def reverse_table(self) -> list[tuple[float, float, float, float, float]]:
        """Per step the five numbers of a reverse step: x0 = a x + b f(x) and x_{t-1} = c x0 + d x + s z.

        f is the denoiser, z unit noise. `ancestral` draws from the posterior of Ho et al. (2020, Eq. 7); `ddim` is
        Song et al. (2021, Eq. 12) with sigma = 0.
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

    def reverse(self, x: Tensor, start: int, draw, clip: float | None) -> Tensor:
        """The reverse process (Eq. 6) from `x` (S, L, C) at step `start` down to the clean feature, with gradient.

        `draw(step)` gives unit noise of the shape of `x`; `clip` bounds the estimate of the clean feature.
        """
        if clip is None and isinstance(self.model, Denoiser):
            return self.reverse_narrow(x, start, draw)
        table = self.reverse_table()
        for step in reversed(range(start + 1)):
            a, b, c, d, s = table[step]
            prediction = self.model(x, torch.full(x.shape[:1], step, device=x.device))
            clean = (x * a).add_(prediction, alpha=b)
            if clip is not None:
                clean = clean.clamp(-clip, clip)
            x = (x * d).add_(clean, alpha=c)
            if s > 0:
                x = x.add_(draw(step), alpha=s)
        return x

    def reverse_narrow(self, x: Tensor, start: int, draw) -> Tensor:
        """`reverse` without a clip, in the `width` channels of the denoiser instead of the C of the sequence.

        A step x' = (a c + d) x + b c f(x) + s z is linear but for the inside of f = write . between . read. So
        read(x') follows from read(x), the inner output h and read(z), and the clean feature is a weighted sum of x,
        of all h (written once) and of all z. The gradient never passes through a sequence of C channels but the
        first, and the first convolution reads the noise of all steps at once.
        """
        keep, add, spread = zip(*((a * c + d, b * c, s) for a, b, c, d, s in self.reverse_table()), strict=True)
        later = [math.prod(keep[:step]) for step in range(start + 2)]      # what the steps below `step` multiply by
        noisy = [step for step in reversed(range(start + 1)) if spread[step] > 0]

        clean, noise_read = x * later[start + 1], {}
        if noisy:
            noise = torch.stack([draw(step) for step in noisy])                    # (n, S, L, C)
            weight = noise.new_tensor([spread[step] * later[step] for step in noisy])
            clean = clean + torch.tensordot(weight, noise, dims=1)
            reading = self.model.read(noise.flatten(0, 1)).unflatten(0, noise.shape[:2])
            noise_read = dict(zip(noisy, reading.unbind(), strict=True))
        y, hidden, reread = self.model.read(x), 0, self.model.reread(x.shape[1])
        for step in reversed(range(start + 1)):
            h = self.model(y, torch.full(x.shape[:1], step, device=x.device), inner=True)          # (S, L, width)
            hidden = hidden + h * (add[step] * later[step])
            y = y * keep[step] + reread(h) * add[step]
            if step in noise_read:
                y = y + noise_read[step] * spread[step]
        bias = self.model.final_conv.bias * sum(add[step] * later[step] for step in range(start + 1))
        return clean + self.model.write(hidden) + bias
