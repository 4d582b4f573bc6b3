"""The Audio-Visual Relation-aware (AVR) diffusion model, section 3.2, Eq. 5-7 of the paper.

Fidelity. The text prints, and the defaults follow:
- noise prediction on real pairs (Eq. 7), without weights over steps;
- the pair given is the initial state of the reverse process, un-noised (Fig. 4b, section 4.4);
- all T = 10 steps forward and reverse (section 4.1).
The text is silent, and these are readings:
- Eq. 7 is taken at one random step per sequence, and Eq. 8 is differentiated through all steps;
- it "concatenates" the pair: `layouts.py` has two ways;
- it prints no schedule ("beta_t indicates hyper-parameters") and cites DDPM. `ddpm` takes the betas
  of that paper, 1e-4 to 0.02, over T steps: alpha-bar_T is 0.90 at T = 10 and every step is a small
  correction. `sigmoid` is the official code's, made for v-prediction with a clamp: alpha-bar_T is
  4e-5, and with noise prediction an untrained network multiplies an un-noised start by 159
  (docs/findings.md);
- Eq. 6 writes the variance as a network output; it is DDPM's fixed posterior variance here, as
  released;
- Eq. 7 sums over elements, this takes their mean;
- Eq. 5 adds noise of unit scale, so features are standardised per channel before and restored
  after;
- L_ave does not train the encoders (`trains_encoder`);
- in the layout `time` other segments see zeros, or what was recalled, where the data lack one;
- the U-Net's size, and the input beside its last layer (`input_skip`, `Denoiser`).
"""

from __future__ import annotations

from typing import Annotated, Literal

import torch
from pydantic import Field
from torch import Tensor, nn

from models.errors import OptionError
from models.features import Features, FeatureShape, blank
from models.layers.noise import gaussian_like
from models.layers.standardise import Standardiser
from models.rmm_avr.diffusion import Objective, Sampler, Schedule, best_linear_guess, make_betas
from models.rmm_avr.fast import FastDiffusion  # read: `FeatureDiffusion`
from models.rmm_avr.layouts import LAYOUTS

NOISE_STREAM = 10            # step t of a question draws from stream 10 + t of its own noise; T: the start
Width = Annotated[int, Field(ge=8, le=8192, multiple_of=8)]
Steps = Annotated[int, Field(ge=2, le=1000)]
Multipliers = Annotated[tuple[Annotated[int, Field(ge=1, le=64)], ...], Field(min_length=1, max_length=8)]
Beta = Annotated[float, Field(gt=0)]


class AVR(nn.Module):
    """Learns the diffusion of real pairs of audio and visual features, and refines pseudo ones.

    `layout`: the sequences that are diffused. `width`, `multipliers`: of the U-Net. `input_skip`:
    whether its input is added to its output, with a learned weight per step that starts at the best
    linear guess. `steps` T, `schedule`, `objective`: of the diffusion; `betas`: first and last beta
    of the schedule `ddpm`. `start`: `given` takes the pair itself as the state at step `start_step`
    (counted from 0; null: the last), `noised` first adds that step's noise. `clip`: bound of the
    estimated clean feature, in standard deviations; null: none. `sampler`: `ddim` adds no noise in
    the reverse steps. `gradient_steps`: how many of the last reverse steps carry gradient; null:
    all.
    """

    layouts = LAYOUTS            # released.py has others
    trains_encoder = False

    def __init__(
        self,
        shape: FeatureShape,
        *,
        layout: Literal["tokens", "time"] = "tokens",
        width: Width = 64,
        multipliers: Multipliers = (1, 2),
        input_skip: bool = True,
        steps: Steps = 10,
        schedule: Schedule = "ddpm",
        betas: tuple[Beta, Beta] = (1e-4, 0.02),
        objective: Objective = "noise",
        start: Literal["given", "noised"] = "given",
        start_step: Annotated[int, Field(ge=0)] | None = None,
        clip: Annotated[float, Field(gt=0)] | None = None,
        sampler: Sampler = "ancestral",
        gradient_steps: Annotated[int, Field(ge=0)] | None = None,
    ) -> None:
        super().__init__()
        if start_step is not None and start_step >= steps:
            raise OptionError(f"avr.start_step={start_step} must be below avr.steps={steps}: steps count from 0")
        if gradient_steps is not None and gradient_steps > steps:
            raise OptionError(f"avr.gradient_steps={gradient_steps} is more than avr.steps={steps}; null means all "
                              "of them")
        self.start, self.clip = start, clip
        self.reverse_steps = steps if start_step is None else start_step + 1
        self.gradient_steps = gradient_steps
        self.audio_scale, self.visual_scale = Standardiser(shape.channels), Standardiser(shape.channels)
        self.layout = self.layouts[layout](shape, multipliers)
        betas = make_betas(schedule, steps, betas)
        if float(betas.max()) >= 1:
            raise OptionError(f"avr.betas reach {float(betas.max()):g}; every beta must be below 1")
        denoiser = self.layout.denoiser(width, best_linear_guess(betas, objective) if input_skip else None)
        self.diffusion = FastDiffusion(denoiser, betas, objective, sampler)

    def loss(self, features: Features) -> Tensor:
        """L_ave, Eq. 7, over the segments whose pair is real; a scalar.

        In training it first updates the scales of the features, which `refine` uses, too.
        """
        whole = features.presence.all(dim=-1)                                      # (B, T)
        audio, visual = blank(features.audio, whole), blank(features.visual, whole)            # no half pairs
        if not self.trains_encoder:
            audio, visual = audio.detach(), visual.detach()
        if self.training:
            self.audio_scale.observe(audio, whole)
            self.visual_scale.observe(visual, whole)
        error = self.layout.per_segment(self.diffusion.training_error(self.join(audio, visual)))   # (B, T)
        return (error * whole).sum() / whole.sum().clamp_min(1)

    def refine(self, pair: Features) -> Features:
        """Both sides after the reverse process (Eq. 6, Fig. 4b) from the pair, with gradient."""
        x, last = self.join(pair.audio, pair.visual), self.reverse_steps - 1       # (S, L, C)

        def draw(step: int) -> Tensor:
            per_question = x.detach().reshape(len(pair.audio), -1, x.shape[-1])
            return gaussian_like(per_question, pair.question_id, NOISE_STREAM + step).reshape(x.shape)

        state = x
        if self.start == "noised":
            state = self.diffusion.noised(x, torch.full(x.shape[:1], last, device=x.device), draw(last + 1))
        clean = self.diffusion.reverse(state, self.reverse_steps, draw, self.clip, self.gradient_steps)
        audio, visual = self.pair_of(clean)
        return pair.with_(audio=audio.to(pair.audio.dtype), visual=visual.to(pair.visual.dtype))

    def join(self, audio: Tensor, visual: Tensor) -> Tensor:
        """The standardised pair as float32 sequences (S, L, C)."""
        return self.layout.join(self.audio_scale.standardise(audio), self.visual_scale.standardise(visual))

    def pair_of(self, clean: Tensor) -> tuple[Tensor, Tensor]:
        """The inverse of `join`: audio (B, T, D) and visual (B, T, N, D) on their own scale."""
        return self.restore(*self.layout.separate(clean))

    def restore(self, audio: Tensor, visual: Tensor) -> tuple[Tensor, Tensor]:
        """A standardised pair on the scale of the features."""
        return self.audio_scale.restore(audio), self.visual_scale.restore(visual)

    def noise(self, features: Features) -> tuple[Tensor, Tensor]:
        """Unit noise on the scale of the features: the pair of AVR alone, without RMM."""
        return self.restore(gaussian_like(features.audio, features.question_id, stream=1),
                            gaussian_like(features.visual, features.question_id, stream=2))
