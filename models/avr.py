"""The Audio-Visual Relation-aware (AVR) diffusion model, section 3.2, Eq. 5-7 of the paper.

Fidelity:
- the pair is concatenated and denoised by a T-step diffusion model; "concatenation" has two readings, `layout`:
  `tokens`, per segment the sequence [audio; N visual tokens] of D channels, or `time`, per question the sequence over
  segments of D + N*D channels;
- Eq. 7 on real pairs, with the mean over elements in place of the squared norm;
- refinement is the reverse process from the pair given, un-noised (Fig. 4b), through all steps, with gradient;
- features are standardised per channel and modality before and restored after: Eq. 5 adds noise of unit scale, so
  the data must have unit scale. The pair counts as given data there (`detach_input`);
- the schedule is not in the paper; `sigmoid` is the default of the library version the released code carries.
At the last step alpha-bar is about 4e-5, so an un-noised start is divided by its root: with `objective: noise`, the
estimated clean feature starts 160 times too large, which `clip` (in standard deviations) bounds.
"""

from __future__ import annotations

from typing import Annotated, Literal

import torch
from pydantic import Field
from torch import Tensor, nn

from models.features import FeatureShape
from models.layers.denoiser import make_denoiser
from models.layers.diffusion import FeatureDiffusion, Schedule
from models.layers.noise import gaussian_like


class Standardiser(nn.Module):
    """Running mean and deviation per channel of one modality; exact on the first batch, then exponential."""

    momentum = 0.01

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.register_buffer("mean", torch.zeros(channels))
        self.register_buffer("std", torch.ones(channels))
        self.register_buffer("seen", torch.zeros((), dtype=torch.bool))

    @torch.no_grad()
    def observe(self, values: Tensor, present: Tensor) -> None:
        """`values` (B, T, ..., D); only where `present` (B, T)."""
        chosen = values.detach()[present].float().flatten(0, -2)       # (P, D)
        if chosen.shape[0] < 2:
            return
        std, mean = torch.std_mean(chosen, dim=0)
        if bool(self.seen):
            mean, std = torch.lerp(self.mean, mean, self.momentum), torch.lerp(self.std, std, self.momentum)
        self.mean.copy_(mean)
        self.std.copy_(std.clamp_min(1e-3))
        self.seen.fill_(True)

    def standardise(self, values: Tensor) -> Tensor:
        return (values - self.mean) / self.std

    def restore(self, values: Tensor) -> Tensor:
        return values * self.std + self.mean


class AVR(nn.Module):
    """Refines a pair of audio (B, T, D) and visual (B, T, N, D) features.

    `width`, `multipliers`: of the U-Net. `steps` T, `schedule`, `objective`: of the diffusion. `clip`: bound of the
    estimated clean feature in standard deviations, null for none. `start`: `given` takes the pair as the state at
    step `start_step` (null: the last), `noised` adds that step's noise first. `detach_input`: L_ave does not train
    the encoder.
    """

    def __init__(
        self,
        shape: FeatureShape,
        *,
        layout: Literal["tokens", "time"] = "tokens",
        width: Annotated[int, Field(ge=8, multiple_of=8)] = 64,
        multipliers: tuple[int, ...] = (1, 2),
        steps: Annotated[int, Field(ge=2)] = 10,
        schedule: Schedule = "sigmoid",
        objective: Literal["noise", "x0", "v"] = "noise",
        clip: Annotated[float, Field(gt=0)] | None = None,
        start: Literal["given", "noised"] = "given",
        start_step: Annotated[int, Field(ge=0)] | None = None,
        detach_input: bool = True,
    ) -> None:
        super().__init__()
        self.shape, self.layout, self.clip, self.start, self.detach_input = shape, layout, clip, start, detach_input
        self.start_step = steps - 1 if start_step is None else start_step
        if self.start_step >= steps:
            raise ValueError(f"avr.start_step={start_step} must be below avr.steps={steps}")
        D, N = shape.channels, shape.tokens
        channels, length = (D, 1 + N) if layout == "tokens" else (D + N * D, shape.segments)
        factor = 2 ** (len(multipliers) - 1)                           # the U-Net halves the length that often
        self.padding = -length % factor
        self.audio_scale, self.visual_scale = Standardiser(D), Standardiser(D)
        denoiser = make_denoiser(width, channels, multipliers)
        self.diffusion = FeatureDiffusion(denoiser, length + self.padding, steps, schedule, objective)

    def loss(self, audio: Tensor, visual: Tensor, present: Tensor) -> Tensor:
        """L_ave, Eq. 7, on the segments (questions for layout `time`) whose pair is real; `present` (B, T) bool."""
        if self.training:
            self.audio_scale.observe(audio, present)
            self.visual_scale.observe(visual, present)
        pair = self.join(audio, visual)                                # (S, C, L)
        if self.detach_input:
            pair = pair.detach()
        whole = present.flatten() if self.layout == "tokens" else present.all(dim=1)
        t = self.diffusion.random_times(pair.shape[0])
        error = self.diffusion.p_losses(pair, t, loss_reduction="none")    # (S,)
        return torch.where(whole, error, 0).sum() / whole.sum().clamp_min(1)

    def refine(self, audio: Tensor, visual: Tensor, question_id: Tensor | None) -> tuple[Tensor, Tensor]:
        """The reverse process (Eq. 6, Fig. 4b) from the pair given, through all steps, with gradient."""
        x = self.join(audio, visual)                                   # (S, C, L)
        if self.start == "noised":
            steps = torch.full(x.shape[:1], self.start_step, device=x.device, dtype=torch.long)
            x = self.diffusion.q_sample(x, steps, self.noise(x, audio.shape[0], question_id, self.start_step + 1))
        for t in reversed(range(self.start_step + 1)):
            x = self.diffusion.reverse_step(x, t, self.noise(x, audio.shape[0], question_id, t) if t else None, self.clip)
        return self.separate(x, audio.shape[0])

    def noise(self, x: Tensor, questions: int, question_id: Tensor | None, t: int) -> Tensor:
        """Noise of the shape of `x` (S, C, L), drawn per question."""
        return gaussian_like(x.reshape(questions, -1, *x.shape[1:]), question_id, stream=10 + t).reshape(x.shape)

    def join(self, audio: Tensor, visual: Tensor) -> Tensor:
        """The standardised pair as sequences (S, C, L), padded at the end to what the U-Net can halve."""
        audio, visual = self.audio_scale.standardise(audio), self.visual_scale.standardise(visual)
        if self.layout == "tokens":
            pair = torch.cat([audio.unsqueeze(2), visual], dim=2)      # (B, T, 1+N, D)
            pair = pair.flatten(0, 1).transpose(1, 2)                  # (B*T, D, 1+N)
        else:
            pair = torch.cat([audio, visual.flatten(2)], dim=2).transpose(1, 2)    # (B, D+N*D, T)
        return nn.functional.pad(pair, (0, self.padding))

    def separate(self, pair: Tensor, questions: int) -> tuple[Tensor, Tensor]:
        """The inverse of `join`: audio (B, T, D) and visual (B, T, N, D) on their own scale."""
        pair = pair[..., :pair.shape[-1] - self.padding].transpose(1, 2)           # (S, L, C)
        D, N = self.shape.channels, self.shape.tokens
        if self.layout == "tokens":
            pair = pair.unflatten(0, (questions, -1))                  # (B, T, 1+N, D)
            audio, visual = pair[:, :, 0], pair[:, :, 1:]
        else:
            audio, visual = pair[..., :D], pair[..., D:].unflatten(-1, (N, D))
        return self.restore(audio, visual)

    def restore(self, audio: Tensor, visual: Tensor) -> tuple[Tensor, Tensor]:
        """A standardised pair on the scale of the features."""
        return self.audio_scale.restore(audio), self.visual_scale.restore(visual)
