"""The Audio-Visual Relation-aware (AVR) diffusion model, section 3.2, Eq. 5-7 of the paper."""

from __future__ import annotations

from typing import Annotated, Literal

import torch
from pydantic import Field
from torch import Tensor, nn

from models.features import FeatureShape, blank
from models.layers.denoiser import Denoiser
from models.layers.diffusion import FeatureDiffusion, Objective, Sampler, Schedule
from models.layers.map_denoiser import MapDenoiser
from models.layers.noise import gaussian_like
from models.layers.standardise import Standardiser

NOISE_STREAM = 10            # step t of a question draws from stream 10 + t of its own noise


class AVR(nn.Module):
    """Learns the diffusion of real pairs of audio (B, T, D) and visual (B, T, N, D), and refines pseudo + real ones.

    `layout`: the sequences that are diffused (below). `width`, `multipliers`: of the U-Net. `steps`, `schedule`,
    `objective`, `loss_weight`: of the diffusion; `snr` weighs x0 and v prediction so that they equal noise prediction.
    `clip`: bound of the estimated clean feature, in standard deviations; null for none. `normalize`: `none` diffuses
    the features on their own scale, `unnormalise_only` takes the result for values in [-1, 1] and maps them to [0, 1].
    `start`: `given` takes the pair itself as the state at step `start_step`
    (counted from 0; null: the last), `noised` first adds that step's noise. `detach_input`: L_ave does not train the
    encoders. `sampler`: `ddim` adds no noise in the reverse steps. `audio_readout` of the layout `map`. `samples`: at
    evaluation the mean over that many reverse processes, each with noise of its own.

    Fidelity:
    - section 3.2 concatenates the pair and says no more. `tokens`: per segment the sequence [audio; N visual tokens]
      of D channels; `time`: per question the sequence over segments of D + N*D channels. `map` is the released code:
      audio is repeated at every position of the visual map, a trained 1x1 convolution folds both into D channels, which
      a 2D U-Net denoises, and a second one unfolds them. Noise then acts on a learned mixture. Audio is read off the
      first position (`corner`, as released) or is the mean over all (`mean`);
    - Eq. 5, 7: noise prediction on the real pair, one random step per sequence, no weight over steps; mean over
      elements for the squared norm. The released code predicts v with weight snr / (snr + 1);
    - Eq. 6: the variance is the fixed posterior one of DDPM, [7] of the paper, not a network output (so released);
    - Fig. 4b: the pair given enters the reverse process un-noised, and all steps carry gradient (so released);
    - features are standardised before and restored after, since Eq. 5 adds noise of unit scale. The paper is silent;
      the released code does not, clamps to [-1, 1] and maps the result to [0, 1]: `unnormalise_only` with `clip: 1`;
    - the schedule is not in the paper; `sigmoid` is the one of the released code. `linear` needs 21 steps or more.

    At the last of ten steps alpha-bar is 4e-5. Noise prediction divides an un-noised start by its root, 160: with
    `clip: null` an untrained network returns a finite pair about 160 times too far from the mean, and gradients
    grow alike. `clip`, `objective: x0` or `v`, or an earlier `start_step` keep the unit scale.
    """

    def __init__(
        self,
        shape: FeatureShape,
        *,
        layout: Literal["tokens", "time", "map"] = "tokens",
        width: Annotated[int, Field(ge=8, multiple_of=8)] = 64,
        multipliers: Annotated[tuple[Annotated[int, Field(ge=1)], ...], Field(min_length=1)] = (1, 2),
        steps: Annotated[int, Field(ge=2)] = 10,
        schedule: Schedule = "sigmoid",
        objective: Objective = "noise",
        loss_weight: Literal["none", "snr"] = "none",
        clip: Annotated[float, Field(gt=0)] | None = None,
        normalize: Literal["standardise", "none", "unnormalise_only"] = "standardise",
        start: Literal["given", "noised"] = "given",
        start_step: Annotated[int, Field(ge=0)] | None = None,
        detach_input: bool = True,
        sampler: Sampler = "ancestral",
        audio_readout: Literal["corner", "mean"] = "corner",
        samples: Annotated[int, Field(ge=1)] = 1,
    ) -> None:
        super().__init__()
        self.start_step = steps - 1 if start_step is None else start_step
        if self.start_step >= steps:
            raise ValueError(f"avr.start_step={start_step} must be below avr.steps={steps}: steps count from 0")
        self.shape, self.layout, self.clip, self.start = shape, layout, clip, start
        self.audio_readout, self.samples = audio_readout, samples
        self.loss_weight, self.normalize, self.detach_input = loss_weight, normalize, detach_input
        if samples > 1 and sampler == "ddim" and start == "given":
            raise ValueError(f"avr.samples={samples} with avr.sampler=ddim needs avr.start=noised: without noise all "
                             "samples are the same")
        D, N = shape.channels, shape.tokens
        channels, length = {"tokens": (D, 1 + N), "time": (D + N * D, shape.segments), "map": (D, N)}[layout]
        self.audio_scale, self.visual_scale = Standardiser(D), Standardiser(D)
        if layout == "map":
            self.fold, self.unfold, self.padding = nn.Linear(2 * D, D), nn.Linear(D, 2 * D), 0
            denoiser = MapDenoiser(width, D, multipliers, shape.grid)
        else:
            self.padding = -length % 2 ** (len(multipliers) - 1)       # the U-Net halves the length that often
            denoiser = Denoiser(width, channels, multipliers)
        self.diffusion = FeatureDiffusion(denoiser, length + self.padding, steps, schedule, objective, sampler)

    def loss(self, audio: Tensor, visual: Tensor, present: Tensor | None) -> Tensor:
        """L_ave, Eq. 7, over the segments whose pair is real: `present` (B, T) bool, None for all; a scalar.

        In training the running statistics are updated first. Absent entries may hold anything, NaN included.
        """
        if present is None:
            present = torch.ones(audio.shape[:2], dtype=torch.bool, device=audio.device)
        if self.detach_input:
            audio, visual = audio.detach(), visual.detach()
        audio, visual = blank(audio, present), blank(visual, present)
        if self.training and self.normalize == "standardise":
            self.audio_scale.observe(audio, present)
            self.visual_scale.observe(visual, present)
        error, weight = self.diffusion.training_error(self.join(audio, visual))    # (S, L), (S,)
        if self.loss_weight == "snr":
            error = error * weight.unsqueeze(1)
        error = error[:, :error.shape[1] - self.padding]
        error = error.reshape(*present.shape, -1).mean(dim=-1)                     # (B, T), both layouts
        return (error * present).sum() / present.sum().clamp_min(1)

    def refine(self, audio: Tensor, visual: Tensor, question_id: Tensor | None) -> tuple[Tensor, Tensor]:
        """The reverse process (Eq. 6, Fig. 4b) from the pair given, with gradient; shapes and dtypes are kept.

        `question_id` (B,) int64 seeds each question's noise (evaluation); None (training) draws one sample from the
        global generator.
        """
        state = self.join(audio, visual)                                           # (S, L, C)
        count = 1 if question_id is None else self.samples
        clean = sum(self.sample(state, question_id, number) for number in range(count)) / count
        if self.normalize == "unnormalise_only":
            clean = (clean + 1) / 2
        refined_audio, refined_visual = self.restore(*self.separate(clean, audio.shape[0]))
        return refined_audio.to(audio.dtype), refined_visual.to(visual.dtype)

    def sample(self, state: Tensor, question_id: Tensor | None, number: int) -> Tensor:
        """Reverse process `number` from `state` (S, L, C), standardised, with noise that no other number has."""
        last = self.start_step
        first_stream = NOISE_STREAM + number * (self.diffusion.num_timesteps + 1)

        def draw(step: int) -> Tensor:
            questions = len(state) if question_id is None else len(question_id)
            per_question = state.detach().reshape(questions, -1, state.shape[-1])
            return gaussian_like(per_question, question_id, first_stream + step).reshape(state.shape)

        x = state
        if self.start == "noised":
            x = self.diffusion.q_sample(state, torch.full(state.shape[:1], last, device=state.device), draw(last + 1))
        return self.diffusion.reverse(x, last, draw, self.clip)

    def join(self, audio: Tensor, visual: Tensor) -> Tensor:
        """The standardised pair as float32 sequences (S, L, C), zeros at the end where the U-Net needs a multiple."""
        audio, visual = self.audio_scale.standardise(audio), self.visual_scale.standardise(visual)
        if self.layout == "map":
            everywhere = audio.unsqueeze(2).expand_as(visual)                      # (B, T, N, D)
            return self.fold(torch.cat([everywhere, visual], dim=-1)).flatten(0, 1).float()    # (B*T, N, D)
        if self.layout == "tokens":
            pads = [audio.new_zeros(*audio.shape[:2], self.padding, audio.shape[2])] if self.padding else []
            return torch.cat([audio.unsqueeze(2), visual, *pads], dim=2).flatten(0, 1)     # (B*T, 1+N, D)
        pair = torch.cat([audio, visual.flatten(2)], dim=2)                        # (B, T, D+N*D)
        return nn.functional.pad(pair, (0, 0, 0, self.padding))

    def separate(self, pair: Tensor, questions: int) -> tuple[Tensor, Tensor]:
        """The parts of `join`, still standardised: audio (B, T, D), visual (B, T, N, D)."""
        pair = pair[:, :pair.shape[1] - self.padding]
        D, N = self.shape.channels, self.shape.tokens
        if self.layout == "map":
            audio, visual = self.unfold(pair).unflatten(0, (questions, -1)).chunk(2, dim=-1)   # (B, T, N, D) each
            return audio[:, :, 0] if self.audio_readout == "corner" else audio.mean(dim=2), visual
        if self.layout == "tokens":
            pair = pair.unflatten(0, (questions, -1))                              # (B, T, 1+N, D)
            return pair[:, :, 0], pair[:, :, 1:]
        return pair[..., :D], pair[..., D:].unflatten(-1, (N, D))

    def restore(self, audio: Tensor, visual: Tensor) -> tuple[Tensor, Tensor]:
        """A standardised pair on the scale of the features."""
        return self.audio_scale.restore(audio), self.visual_scale.restore(visual)
