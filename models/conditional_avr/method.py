"""Conditional AVR (ours): the missing side is generated from what is there, by few steps.

Where it departs from section 3.2 of the paper:
- the side that is there is a condition, clean at every step, and is never changed;
- the question conditions, too;
- one network estimates the clean feature (or v) at a random time; one step of it is plain
  regression, many steps from noise are a sample;
- `process: bridge` ends at what RMM recalled (at the mean without RMM), un-noised as in Fig. 4b;
- with several `samples` the answers are averaged, p(y | v, q) = E over a of p(y | a, v, q), or the
  features are.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Annotated, Literal

import torch
from pydantic import Field
from torch import Tensor

from dataset.types import AUDIO, VISUAL
from models.conditional_avr.denoisers import NETWORKS, Network
from models.conditional_avr.process import PROCESSES, Objective, clean_estimate, mixed, reverse
from models.errors import OptionError
from models.features import Features, FeatureShape, Fused, blank_features, concatenate, fill_absent
from models.layers.noise import gaussian_like
from models.layers.standardise import Standardiser
from models.methods.base import Answered, Method, ViewMode, Views, build_section, simulate
from models.rmm_avr.rmm import RMM

NOISE_STREAM = 100           # sample k of a question draws from stream 100 + k of its own noise


class ConditionalAVR(Method):
    """Completes features between any backbone's `encode` and `fuse`; a backbone may stay frozen.

    `network`, `width`, `layers`: of the denoiser. `process`, `objective`: `process.py`. `steps`,
    `samples` and what is averaged over them (`average`): of an evaluation; they may be changed
    after training. `regression`: share of the training questions whose estimate is made from the
    end state, as one step is. `weight`: of the estimate's error. `views`: `simulate`. RMM recalls
    the end of the bridge; a path from noise has none.
    """

    sections = {"rmm": RMM}

    def __init__(
        self,
        shape: FeatureShape,
        *,
        rmm: dict,
        network: Network = "transformer",
        width: Annotated[int, Field(ge=8, le=4096, multiple_of=8)] = 128,
        layers: Annotated[int, Field(ge=1, le=64)] = 3,
        process: Literal["noise", "bridge"] = "noise",
        objective: Objective = "x0",
        steps: Annotated[int, Field(ge=1, le=1000)] = 1,
        samples: Annotated[int, Field(ge=1, le=1000)] = 1,
        average: Literal["answers", "features"] = "answers",
        regression: Annotated[float, Field(ge=0, le=1)] = 0.5,
        weight: Annotated[float, Field(ge=0)] = 3.0,
        views: ViewMode = "all",
    ) -> None:
        super().__init__()
        self.path = PROCESSES[process]()
        if samples > 1 and (steps == 1 or not self.path.random_end):
            raise OptionError(f"method.samples={samples} are all alike with "
                              + ("method.steps=1, which is regression" if steps == 1 else "method.process=bridge")
                              + "; take method.samples=1, or noise and more steps")
        self.rmm = None if self.path.random_end else build_section(RMM, shape, rmm)
        self.tokens_of_picture = shape.tokens
        self.network = NETWORKS[network](shape, width, layers)
        self.audio_scale, self.visual_scale = Standardiser(shape.channels), Standardiser(shape.channels)
        self.objective, self.views_mode, self.average = objective, views, average
        self.steps, self.samples, self.regression = steps, samples, regression
        self.loss_weights = {"estimate": weight, "rmmr": 1.0}

    def compile_hot_path(self) -> None:
        self.network.compile()

    def fill_in(self, features: Features) -> Features:
        """Every absent entry generated; `samples` bundles one after the other if answers are
        averaged.
        """
        if bool(features.whole.all()):
            return features
        end, missing = self.end_state(features), ~features.presence
        drawn = [self.generate(features, end, missing, k) for k in range(self.samples)]
        if self.average == "answers":
            return concatenate([self.written(features, x) for x in drawn]).with_(samples=self.samples)
        return self.written(features, torch.stack(drawn).mean(dim=0))

    def stages(self, features: Features) -> dict[str, Features]:
        """What RMM recalled, and the mean of the samples."""
        end, missing = self.end_state(features), ~features.presence
        drawn = [self.generate(features, end, missing, k) for k in range(self.samples)]
        stages = {} if self.rmm is None else {"recalled": self.written(features, end)}
        return stages | {"generated": self.written(features, torch.stack(drawn).mean(dim=0))}

    def views(self, features: Features) -> Views:
        """The simulated states, each completed by an estimate from a random time of the path.

        The error is the mean over the entries that were taken away, of either side by itself. A
        view that is known to lack nothing is handed on. Times and noise are drawn for it, too, so
        that they depend on no knowledge of what the data lack.
        """
        self.observe(features)
        presence, states = features.presence, simulate(features.presence, self.views_mode)
        reduced = {name: blank_features(features, state) for name, state in states.items()
                   if not (features.known_whole and state is presence)}

        def of_reduced(values: Tensor) -> Tensor:
            """(V, B, ...), all views, to (R*B, ...), those of `reduced`."""
            return torch.cat([of_view for name, of_view in zip(states, values, strict=True) if name in reduced])

        V, B = len(states), len(presence)
        real = torch.where(self.by_token(presence)[..., None], self.tokens(features).detach(), 0.0)
        t = torch.rand(V * B, device=real.device)
        t = of_reduced(torch.where(torch.rand_like(t) < self.regression, 1.0, t).view(V, B))
        real = real.expand(V, *real.shape)                                         # (V, B, T, M, D), the mean if absent
        end = torch.randn_like(real) if self.path.random_end else self.end_state(features).expand_as(real)
        real, end, left = of_reduced(real), of_reduced(end), concatenate(list(reduced.values()))
        estimate = self.estimate(left, mixed(self.path, real, end, t), ~left.presence, t)      # (R*B, T, M, D)
        removed = presence.repeat(len(reduced), 1, 1) & ~left.presence             # (R*B, T, 2)
        losses = {"estimate": self.error(estimate, real, removed)}
        if self.rmm is not None:
            losses["rmmr"] = self.rmm.loss(features, self.rmm(features))
        filled = dict(zip(reduced, self.written(left, estimate).split(B), strict=True))
        return Views({name: filled.get(name, features) for name in states}, losses)

    def end_state(self, features: Features) -> Tensor:
        """What RMM recalls, standardised tokens (B, T, M, D); without RMM their mean, zeros."""
        if self.rmm is None:
            B, T, _, D = features.visual.shape
            return features.visual.new_zeros(B, T, 1 + self.tokens_of_picture, D, dtype=torch.float32)
        pseudo = self.rmm(features)
        return self.tokens(features.with_(audio=pseudo.audio, visual=pseudo.visual))

    def generate(self, features: Features, end: Tensor, missing: Tensor, sample: int) -> Tensor:
        """Sample number `sample` of the clean tokens, (B, T, M, D)."""
        if self.path.random_end and self.steps > 1:
            end = gaussian_like(end, features.question_id, NOISE_STREAM + sample)
        return reverse(self.path, end, self.steps, lambda x, t: self.estimate(features, x, missing, t))

    def estimate(self, features: Features, state: Tensor, missing: Tensor, t: Tensor) -> Tensor:
        """The clean tokens (B, T, M, D) from the present ones and the `state` at times `t` (B,).

        At t = 1 noise says nothing, and the network is given the mean in its place.
        """
        missing = self.by_token(missing)                                           # (B, T, M)
        known = torch.where(missing[..., None], 0.0, self.tokens(features))
        told = missing if not self.path.random_end else missing & (t < 1)[:, None, None]
        seen = torch.where(told[..., None], state, 0.0)
        question = features.question.float()
        return clean_estimate(self.path, self.objective, seen, self.network(known, seen, missing, question, t), t)

    def error(self, estimate: Tensor, real: Tensor, removed: Tensor) -> Tensor:
        """Mean squared error (scalar) of the sides that `removed` (B, T, 2) selects, of unit
        variance each.
        """
        error = (estimate - real).square().mean(dim=-1)                            # (B, T, M)
        sides = torch.stack([error[..., 0], error[..., 1:].mean(dim=-1)], dim=-1)  # (B, T, 2)
        sides = torch.where(removed, sides, 0.0)
        return (sides.sum(dim=(0, 1)) / removed.sum(dim=(0, 1)).clamp_min(1)).sum()

    def observe(self, features: Features) -> None:
        if self.training:
            self.audio_scale.observe(features.audio.detach(), features.presence[..., AUDIO])
            self.visual_scale.observe(features.visual.detach(), features.presence[..., VISUAL])

    def tokens(self, features: Features) -> Tensor:
        """Both sides on unit scale, float32 (B, T, M, D), the sound first."""
        audio, visual = self.audio_scale.standardise(features.audio), self.visual_scale.standardise(features.visual)
        return torch.cat([audio.unsqueeze(2), visual], dim=2)

    def by_token(self, sides: Tensor) -> Tensor:
        """A mark of either side (B, T, 2) as one of every token, (B, T, M)."""
        return torch.cat([sides[..., :1], sides[..., 1:].expand(-1, -1, self.tokens_of_picture)], dim=-1)

    def written(self, features: Features, clean: Tensor) -> Features:
        """`features` with the absent entries from clean tokens (B, T, M, D), on their own scale."""
        audio, visual = self.audio_scale.restore(clean[:, :, 0]), self.visual_scale.restore(clean[:, :, 1:])
        return fill_absent(features, audio, visual)

    def addressing(self, features: Features) -> tuple[Tensor, Tensor] | None:
        pseudo = self.rmm and self.rmm(features)
        return pseudo and (pseudo.audio_addressing, pseudo.visual_addressing)

    def answer(
        self, fused: Fused, features: Features, head: Callable[[Tensor], Tensor], target: Tensor | None
    ) -> Answered:
        """With several samples the logarithm of the mean probabilities."""
        logits = head(fused.vector)
        if self.training or self.samples == 1:
            return Answered(logits)
        shares = logits.float().log_softmax(dim=-1).unflatten(0, (features.samples, -1))       # (S, B, A)
        return Answered(shares.logsumexp(dim=0) - math.log(features.samples))
