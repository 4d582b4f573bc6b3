"""The paper's method: RMM recalls the missing modality, AVR refines the pair (sections 3.1-3.3, Eq.
8).

Fidelity:
- training answers three views: complete (unrefined), audio missing and visual missing (pseudo +
  real, refined);
- `refine: both` is Eq. 8, where both sides of a refined pair are answered on; the released code
  replaces the missing side only (`missing_only`);
- both refinements go through the denoiser as one batch, which changes nothing but the time;
- complete input is never refined at test, as Eq. 8 trains it;
- the switches of Table 4: `rmm.enabled`, `avr.enabled`. AVR alone starts the missing part from unit
  noise of the standardised features; with both off the method is the plain backbone with `fill`;
- `label_smoothing` and `views: segments` are ours, off by default (`configs/plus.yaml`,
  `docs/findings.md`).
"""

from __future__ import annotations

from typing import Annotated, Literal

import torch
from pydantic import Field
from torch import Tensor

from dataset.types import AUDIO, VISUAL
from models.features import Features, FeatureShape, blank_features, concatenate
from models.layers.fill import Fill, FillMode
from models.layers.noise import gaussian_like
from models.methods.base import Method, Views, simulate
from models.rmm_avr.avr import AVR
from models.rmm_avr.rmm import RMM


class RMMAVR(Method):
    """RMM and AVR between any backbone's `encode` and `fuse`.

    `rmm`, `avr`: the options of the two modules plus `enabled`. `lambda1`, `lambda2`: weights of
    L_rmmr and L_ave. `refine`: which sides of a refined pair are answered on. `fill`: of the plain
    backbone, with both switches off. `views`: the three of Eq. 8 (`all`), or a fourth with them, in
    which single segments lack something (`segments`).
    """

    sections = {"rmm": RMM, "avr": AVR}

    def __init__(
        self,
        shape: FeatureShape,
        *,
        rmm: dict,
        avr: dict,
        refine: Literal["both", "missing_only"] = "both",
        fill: FillMode = "zeros",
        lambda1: Annotated[float, Field(ge=0)] = 1.0,
        lambda2: Annotated[float, Field(ge=0)] = 1.0,
        label_smoothing: Annotated[float, Field(ge=0, lt=1)] = 0.0,
        views: Literal["all", "segments"] = "all",
    ) -> None:
        super().__init__()
        self.rmm = build_section(self.sections["rmm"], shape, rmm)
        self.avr = build_section(self.sections["avr"], shape, avr)
        self.fill = Fill(shape, fill)
        self.refine_both = refine == "both"
        self.label_smoothing = label_smoothing
        self.views_mode = views
        self.loss_weights = {"rmmr": lambda1, "ave": lambda2}

    def compile_hot_path(self) -> None:
        if self.avr is not None:
            self.avr.diffusion.model.compile()

    def complete(self, features: Features, presence: Tensor) -> Features:
        """Recall and refine the questions that lack something; the others pass through untouched.
        """
        lacking = ~presence.flatten(1).all(dim=1)                      # (B,)
        if not bool(lacking.any()):
            return features
        stages = self.stages(features.rows(lacking), presence[lacking])
        completed = list(stages.values())[-1]
        if bool(lacking.all()):
            return completed
        return features.with_(
            audio=features.audio.index_put((lacking,), completed.audio.to(features.audio.dtype)),
            visual=features.visual.index_put((lacking,), completed.visual.to(features.visual.dtype)),
        )

    def stages(self, features: Features, presence: Tensor) -> dict[str, Features]:
        """Recalled by RMM (or drawn, without it), and refined by AVR."""
        recalled = self.recall(features, presence, features.question_id)
        if self.avr is None:
            return {"recalled": recalled}
        refined = self.refine(recalled, features.question_id)
        return {"recalled": recalled, "refined": merge(recalled, refined, *self.answered_on(presence))}

    def addressing(self, features: Features) -> tuple[Tensor, Tensor] | None:
        if self.rmm is None:
            return None
        pseudo = self.rmm(features, features.presence)
        return pseudo.audio_addressing, pseudo.visual_addressing

    @property
    def reverse_steps(self) -> int | None:
        return None if self.avr is None else self.avr.reverse_steps

    @reverse_steps.setter
    def reverse_steps(self, steps: int) -> None:
        self.avr.reverse_steps = steps

    def views(self, features: Features, presence: Tensor) -> Views:
        """The three views of Eq. 8 with L_rmmr and L_ave on the segments where both modalities are
        real.
        """
        self.fill.observe(features, presence)
        if self.rmm is None and self.avr is None:
            return Views({"complete": self.fill(features, presence, None)})
        whole = presence.all(dim=-1)                                   # (B, T)
        losses = {}
        if self.avr is not None:
            losses["ave"] = self.avr.loss(features.audio, features.visual, whole)
        pseudo = None if self.rmm is None else self.rmm(features, presence)
        if pseudo is not None:
            losses["rmmr"] = self.rmm.loss(features, pseudo, whole)
        states = simulate(presence, self.views_mode)
        del states["complete"]                                         # answered as it is
        recalled = concatenate([self.recall(blank_features(features, s), s, None, pseudo) for s in states.values()])
        refined = self.refine(recalled, None)
        losses |= self.refinement_losses(features, refined.split(len(whole)), whole)
        answered = merge(recalled, refined, *self.answered_on(torch.cat(list(states.values()))))
        views = dict(zip(states, answered.split(len(whole)), strict=True))
        # What the data lack is completed as in the view that lacks the same.
        complete = merge(features, views["audio_missing"], ~whole, ~whole)
        return Views({"complete": complete, **views}, losses)

    def recall(self, features: Features, presence: Tensor, question_id: Tensor | None, pseudo=None) -> Features:
        """The pair before refinement: pseudo features (or noise, without RMM) in the absent
        entries.
        """
        if self.rmm is not None:
            pseudo = pseudo or self.rmm(features, presence)
            audio, visual = pseudo.audio, pseudo.visual
        elif self.avr is not None:
            audio, visual = self.avr.restore(
                gaussian_like(features.audio, question_id, stream=1), gaussian_like(features.visual, question_id, stream=2)
            )
        else:
            return self.fill(features, presence, question_id)
        stand_in = features.with_(audio=audio.to(features.audio.dtype), visual=visual.to(features.visual.dtype))
        return merge(features, stand_in, ~presence[..., AUDIO], ~presence[..., VISUAL])

    def refine(self, pair: Features, question_id: Tensor | None) -> Features:
        """Both sides of every segment after the reverse process of AVR; as they are without it."""
        if self.avr is None:
            return pair
        audio, visual = self.avr.refine(pair.audio, pair.visual, question_id)
        return pair.with_(audio=audio, visual=visual)

    def answered_on(self, presence: Tensor) -> tuple[Tensor, Tensor]:
        """The segments (B, T) whose audio and whose visual side is answered on as refined: both
        sides of all that lack a modality (Eq. 8), or the missing side of each.
        """
        lacking = ~presence.all(dim=-1)
        return (lacking, lacking) if self.refine_both else (~presence[..., AUDIO], ~presence[..., VISUAL])

    def refinement_losses(self, real: Features, refined: list[Features], whole: Tensor) -> dict[str, Tensor]:
        """Loss terms of the refined views against the `real` features; the paper has none."""
        return {}

    def refine_noised_real(self, features: Features, state: Tensor, scale: tuple[float, float]) -> Features:
        """The released evaluation's "pseudo" pair, refined: real + noise where `state` (B, T, 2) is
        False.

        `scale` (audio, visual): standard deviations of the noise. Of what the scenario takes away
        nothing is missing and RMM recalls nothing; what the data themselves lack, where
        `features.presence` is False, it recalls as ever.
        """
        real = self.recall(features, features.presence, features.question_id)
        audio = real.audio + scale[AUDIO] * gaussian_like(real.audio, features.question_id, stream=3)
        visual = real.visual + scale[VISUAL] * gaussian_like(real.visual, features.question_id, stream=4)
        taken = features.presence & ~state                             # (B, T, 2), what the scenario takes away
        pair = merge(real, real.with_(audio=audio, visual=visual), taken[..., AUDIO], taken[..., VISUAL])
        return merge(pair, self.refine(pair, features.question_id), *self.answered_on(state))


def merge(base: Features, other: Features, audio: Tensor, visual: Tensor) -> Features:
    """`base` with the segments that the masks `audio`, `visual` (B, T) select taken from `other`.
    """
    return base.with_(
        audio=torch.where(audio[..., None], other.audio, base.audio),
        visual=torch.where(visual[..., None, None], other.visual, base.visual),
    )


def build_section(module: type, shape: FeatureShape, options: dict):
    """The module of one section, or None where its `enabled` switch is off."""
    options = dict(options)
    return module(shape, **options) if options.pop("enabled", True) else None
