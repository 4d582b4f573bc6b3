"""The official code's choices (VisualAIKHU/Missing-AVQA) where it departs from the paper.

`Released` is the method with these defaults; each can be taken back by its option. `NoisedReal` is
the protocol of the official evaluation, in which the modality is not missing.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Annotated, Literal

import torch
from denoising_diffusion_pytorch import Unet
from denoising_diffusion_pytorch.denoising_diffusion_pytorch import Block
from pydantic import Field
from torch import Tensor, nn
from torch.nn import functional as F

from dataset.types import AUDIO, VISUAL, Batch
from models.avqa import AVQAModel, Output
from models.errors import OptionError
from models.features import Features, FeatureShape, merge
from models.layers.noise import gaussian_like
from models.rmm_avr.avr import AVR, Multipliers, Steps, Width
from models.rmm_avr.diffusion import Objective, Schedule
from models.rmm_avr.layouts import LAYOUTS, Layout
from models.rmm_avr.method import RMMAVR
from models.rmm_avr.rmm import RMM, Slots

GROUPS = 8                                # of the group norm in version 1.9.4 of the library


class ReleasedRMM(RMM):
    """`similarity`: cosine addresses the slots, or Eq. 1's scaled inner product.

    `question_pairing`: `time_major` repeats a defect of the released training: row i of the B*T
    segments is addressed with question i modulo B.
    """

    def __init__(
        self,
        shape: FeatureShape,
        *,
        slots: Slots = 75,
        similarity: Literal["cosine", "scaled_dot"] = "cosine",
        question_pairing: Literal["own", "time_major"] = "own",
    ) -> None:
        super().__init__(shape, slots=slots)
        self.similarity, self.question_pairing = similarity, question_pairing

    def score(self, vector: Tensor, slots: Tensor) -> Tensor:
        """`vector` (..., C) against `slots` (K, C) -> (..., K)."""
        if self.similarity == "scaled_dot":
            return super().score(vector, slots)
        return F.linear(F.normalize(vector, dim=-1), F.normalize(slots, dim=-1))

    def score_question(self, features: Features) -> Tensor:
        text = super().score_question(features)                                    # (B, 1, K)
        if not (self.training and self.question_pairing == "time_major"):
            return text
        B, T = features.audio.shape[:2]
        return text.squeeze(1).repeat(T, 1).unflatten(0, (B, T))                   # (B, T, K)


class MapDenoiser(Unet):
    """The network of the library's version 1.9.4, which the official release carries along.

    Today's version differs from that one in the norm of its convolution blocks alone, so these are
    exchanged for group norms; weights of either can be loaded by name. Takes and returns sequences
    (S, H * W, C) like the 1D denoiser. A side that the U-Net cannot halve often enough is padded
    with zeros, which 14 x 14 does not need.
    """

    def __init__(self, width: int, channels: int, multipliers: tuple[int, ...], grid: tuple[int, int]) -> None:
        super().__init__(width, channels=channels, dim_mults=tuple(multipliers))
        self.grid = grid
        for module in self.modules():
            if isinstance(module, Block):
                module.norm = nn.GroupNorm(GROUPS, module.proj.out_channels)

    def forward(self, x: Tensor, step: Tensor) -> Tensor:
        """`x` (S, N, C) at the diffusion steps `step` (S,) -> the prediction (S, N, C)."""
        height, width = self.grid
        image = x.transpose(1, 2).unflatten(2, self.grid)                           # (S, C, H, W)
        image = F.pad(image, (0, -width % self.downsample_factor, 0, -height % self.downsample_factor))
        image = super().forward(image, step)[..., :height, :width]
        return image.flatten(2).transpose(1, 2)                                     # (S, N, C)


class Map(Layout):
    """Per segment the map into which a trained 1x1 convolution folds the visual map and the audio,
    repeated at every position; a second one unfolds it. Noise acts on a learned mixture: S = B*T, L
    = N, C = D.

    `audio_readout`: audio is read off the first position (`corner`, as released), or is the mean
    over all (`mean`).
    """

    audio_readout = "corner"

    def __init__(self, shape: FeatureShape, multipliers: tuple[int, ...]) -> None:
        super().__init__(shape, (1,), shape.tokens, shape.channels)
        D = shape.channels
        self.multipliers = multipliers
        self.fold, self.unfold = nn.Linear(2 * D, D), nn.Linear(D, 2 * D)

    def denoiser(self, width: int, input_skip: Tensor | None) -> nn.Module:
        if input_skip is not None:
            raise OptionError("avr.input_skip=true needs avr.layout=tokens or avr.layout=time, got avr.layout=map")
        return MapDenoiser(width, self.channels, self.multipliers, self.shape.grid)

    def join(self, audio: Tensor, visual: Tensor) -> Tensor:
        """audio (B, T, D), visual (B, T, N, D) -> (B*T, N, D)."""
        wide = torch.cat([audio.unsqueeze(2).expand_as(visual), visual], dim=-1)   # (B, T, N, 2D)
        return self.fold(wide).flatten(0, 1).float()                               # (B*T, N, D)

    def separate(self, pair: Tensor) -> tuple[Tensor, Tensor]:
        """(B*T, N, D) -> audio (B, T, D), visual (B, T, N, D)."""
        pair = self.unfold(pair).unflatten(0, (-1, self.shape.segments))           # (B, T, N, 2D)
        audio, visual = pair.chunk(2, dim=-1)
        return audio[:, :, 0] if self.audio_readout == "corner" else audio.mean(dim=2), visual

    def per_segment(self, error: Tensor) -> Tensor:
        """An error (B*T, N), averaged per segment: (B, T)."""
        return error.mean(dim=1).unflatten(0, (-1, self.shape.segments))


class ReleasedAVR(AVR):
    """AVR as released: a 2D U-Net on a folded map predicts v under the sigmoid schedule.

    `layout`, `audio_readout`: see `Map`. `loss_weight`: `snr` weighs v-prediction by
    snr / (snr + 1). `normalize`: `unnormalise_only` diffuses features on their own scale, takes the
    result for values in [-1, 1] and maps them to [0, 1]. `clip`: the estimated clean feature is
    clamped. `detach_input`: L_ave does not train the encoders. All else as in `AVR`.
    """

    layouts = {**LAYOUTS, "map": Map}

    def __init__(
        self,
        shape: FeatureShape,
        *,
        layout: Literal["map", "tokens", "time"] = "map",
        width: Width = 64,
        multipliers: Multipliers = (1, 2),
        steps: Steps = 10,
        schedule: Schedule = "sigmoid",
        objective: Objective = "v",
        input_skip: bool = False,
        loss_weight: Literal["none", "snr"] = "snr",
        normalize: Literal["standardise", "unnormalise_only"] = "unnormalise_only",
        clip: Annotated[float, Field(gt=0)] | None = 1.0,
        detach_input: bool = False,
        audio_readout: Literal["corner", "mean"] = "corner",
    ) -> None:
        super().__init__(shape, layout=layout, width=width, multipliers=multipliers, steps=steps, schedule=schedule,
                         objective=objective, input_skip=input_skip, clip=clip)
        self.layout.audio_readout, self.trains_encoder = audio_readout, not detach_input
        self.standardises = normalize == "standardise"
        if loss_weight == "snr" and objective != "noise":          # of noise prediction it is 1
            bar = self.diffusion.alpha_bar
            self.diffusion.loss_weight = bar if objective == "v" else bar / (1 - bar)

    def join(self, audio: Tensor, visual: Tensor) -> Tensor:
        if self.standardises:
            return super().join(audio, visual)
        return self.layout.join(audio.float(), visual.float())

    def pair_of(self, clean: Tensor) -> tuple[Tensor, Tensor]:
        if self.standardises:
            return super().pair_of(clean)
        return self.layout.separate((clean + 1) / 2)


class Released(RMMAVR):
    """The method with the official code's choices.

    `refine`: only the missing side is answered on as refined. `reconstruction`: weight of the mean
    squared errors of all that AVR refines in both views, the present side included, against the
    real features, which the loss trains, too. Other options: `RMMAVR`.
    """

    sections = {"rmm": ReleasedRMM, "avr": ReleasedAVR}

    def __init__(
        self,
        shape: FeatureShape,
        *,
        rmm: dict,
        avr: dict,
        refine: Literal["missing_only", "both"] = "missing_only",
        reconstruction: Annotated[float, Field(ge=0)] = 1.0,
    ) -> None:
        super().__init__(shape, rmm=rmm, avr=avr, refine=refine)
        self.loss_weights["reconstruction"] = reconstruction

    def refinement_losses(self, real: Features, refined: Features) -> dict[str, Tensor]:
        if self.avr is None or self.loss_weights["reconstruction"] == 0:
            return {}
        return {"reconstruction": reconstruction_loss(real, refined.split(len(real.audio)))}


def reconstruction_loss(real: Features, views: list[Features]) -> Tensor:
    """Mean squared error of both sides of all `views` where the `real` pair is whole, added up."""
    whole = real.presence.all(dim=-1)                                               # (B, T)
    total = torch.zeros((), device=whole.device)
    for view in views:
        for name in ("audio", "visual"):
            error = (getattr(view, name).float() - getattr(real, name).float()).square().flatten(2).mean(dim=-1)
            total = total + (error * whole).sum() / whole.sum().clamp_min(1)
    return total


class NoisedReal(nn.Module):
    """`model` under the protocol of the official evaluation, in which nothing is missing.

    What `batch.presence` calls absent is there all the same: its real feature, plus noise of the
    standard deviations `scale` (audio, visual), takes the place of the recalled one. For comparison
    with published figures only: this is the one path on which such values are read.
    """

    def __init__(self, model: AVQAModel, scale: tuple[float, float]) -> None:
        super().__init__()
        if not model.method.refines_pairs:
            raise OptionError("--protocol released_noise is for checkpoints of method=rmm_avr and method=released")
        self.model, self.scale = model, scale

    def forward(self, batch: Batch) -> Output:
        real = self.model.encode(replace(batch, presence=torch.ones_like(batch.presence)))
        noised = real.with_(
            audio=real.audio + self.scale[AUDIO] * gaussian_like(real.audio, real.question_id, stream=3),
            visual=real.visual + self.scale[VISUAL] * gaussian_like(real.visual, real.question_id, stream=4),
        )
        pair = merge(real, noised, ~batch.presence[..., AUDIO], ~batch.presence[..., VISUAL])
        pair = pair.with_(presence=batch.presence)
        answered_on = self.model.method.replace(pair, self.model.method.refine(pair))
        _, answered = self.model.answer(answered_on.with_(presence=real.presence), batch, None)
        return Output({"complete": answered.logits})
