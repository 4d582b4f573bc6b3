"""The paper's method: RMM recalls the missing modality, AVR refines the pair (section 3).

Fidelity:
- training answers three views (Eq. 8): complete, audio missing, visual missing; the latter two are
  a pseudo and a real feature, refined;
- `refine: both` is Eq. 8, where both sides of a refined pair are answered on; the released code
  replaces the missing side only (`missing_only`);
- both refinements go through the denoiser as one batch, which changes nothing but the time;
- complete input is never refined at test, as Eq. 8 trains it;
- the switches of Table 4: `rmm.enabled`, `avr.enabled`. AVR alone starts the missing part from unit
  noise of the standardised features; with both off the method is the plain backbone on zeros;
- `views: segments` is ours, off by default (`configs/plus.yaml`, `docs/findings.md`).
"""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field
from torch import Tensor

from dataset.types import AUDIO, VISUAL
from models.features import Features, FeatureShape, blank_features, concatenate, fill_absent, merge
from models.methods.base import Method, Views, build_section, simulate
from models.rmm_avr.avr import AVR
from models.rmm_avr.rmm import RMM, Pseudo


class RMMAVR(Method):
    """RMM and AVR between any backbone's `encode` and `fuse`.

    `rmm`, `avr`: the options of the two modules plus `enabled`. `lambda1`, `lambda2`: weights of
    L_rmmr and L_ave. `refine`: which sides of a refined pair are answered on. `views`: the three of
    Eq. 8 (`all`), or a fourth with them, in which single segments lack something (`segments`).
    """

    sections = {"rmm": RMM, "avr": AVR}                  # whose options engine/config.py reads
    refines_pairs = True                                 # see `Method`

    def __init__(
        self,
        shape: FeatureShape,
        *,
        rmm: dict,
        avr: dict,
        refine: Literal["both", "missing_only"] = "both",
        lambda1: Annotated[float, Field(ge=0)] = 1.0,
        lambda2: Annotated[float, Field(ge=0)] = 1.0,
        views: Literal["all", "segments"] = "all",
    ) -> None:
        super().__init__()
        self.rmm = build_section(self.sections["rmm"], shape, rmm)
        self.avr = build_section(self.sections["avr"], shape, avr)
        self.refine_both = refine == "both"
        self.views_mode = views
        self.loss_weights = {"rmmr": lambda1, "ave": lambda2}

    def compile_hot_path(self) -> None:
        if self.avr is not None:
            self.avr.diffusion.model.compile()

    def fill_in(self, features: Features) -> Features:
        """Recall and refine the questions that lack something; the others pass untouched."""
        lacking = ~features.whole                                      # (B,)
        if not bool(lacking.any()):
            return features
        *_, filled = self.stages(features.rows(lacking)).values()
        return features.with_(
            audio=features.audio.index_put((lacking,), filled.audio),
            visual=features.visual.index_put((lacking,), filled.visual),
        )

    def stages(self, features: Features) -> dict[str, Features]:
        """What stands in before and after AVR; the last one is answered on."""
        recalled = self.completed(features, self.recall(features))
        if self.avr is None:
            return {"recalled": recalled}
        return {"recalled": recalled, "refined": self.replace(recalled, self.refine(recalled))}

    def views(self, features: Features) -> Views:
        """The three views of Eq. 8, with L_rmmr and L_ave where both modalities are real.

        One recall serves all views: each modality is recalled from the other one, which every view
        that lacks it keeps.
        """
        if self.rmm is None and self.avr is None:
            return Views({"complete": features})
        losses = {} if self.avr is None else {"ave": self.avr.loss(features)}
        pseudo = self.recall(features)
        if pseudo is not None:
            losses["rmmr"] = self.rmm.loss(features, pseudo)
        states = simulate(features.presence, self.views_mode)
        del states["complete"]                                         # answered as it is
        recalled = concatenate([self.completed(blank_features(features, state), pseudo) for state in states.values()])
        refined = self.refine(recalled)
        losses |= self.refinement_losses(features, refined)
        answered = self.replace(recalled, refined).split(len(features.audio))
        views = dict(zip(states, answered, strict=True))
        lacking = ~features.presence.all(dim=-1)                       # (B, T): by the data, so in every view alike
        complete = merge(features, views["audio_missing"], lacking, lacking)
        return Views({"complete": complete, **views}, losses)

    def recall(self, features: Features) -> Pseudo | None:
        """Both modalities as RMM recalls them from what `features.presence` says is there."""
        return None if self.rmm is None else self.rmm(features)

    def completed(self, features: Features, pseudo: Pseudo | None) -> Features:
        """The pair before refinement: pseudo features, or noise without RMM, in absent entries."""
        if pseudo is not None:
            return fill_absent(features, pseudo.audio, pseudo.visual)
        return features if self.avr is None else fill_absent(features, *self.avr.noise(features))

    def refine(self, pair: Features) -> Features:
        """Both sides of every segment after the reverse process of AVR; as they are without it."""
        return pair if self.avr is None else self.avr.refine(pair)

    def replace(self, recalled: Features, refined: Features) -> Features:
        """What is answered on: lacking segments refined on both sides (Eq. 8) or the missing."""
        presence = recalled.presence
        lacking = ~presence.all(dim=-1)                                # (B, T)
        sides = (lacking, lacking) if self.refine_both else (~presence[..., AUDIO], ~presence[..., VISUAL])
        return merge(recalled, refined, *sides)

    def refinement_losses(self, real: Features, refined: Features) -> dict[str, Tensor]:
        """Losses between `real` and the stacked `refined` views, by term; released.py has one."""
        return {}

    def addressing(self, features: Features) -> tuple[Tensor, Tensor] | None:
        pseudo = self.recall(features)
        return None if pseudo is None else (pseudo.audio_addressing, pseudo.visual_addressing)
