"""The composition, and the only file that knows backbone, method and head: encode -> blank ->
method -> fuse -> head.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from functools import partial

import torch
from torch import Tensor, nn

from dataset.types import AUDIO, VISUAL, Batch
from models.backbones.base import Backbone
from models.features import Features, Fused, blank, blank_features, concatenate
from models.methods.base import Answered, Method, Views
from models.objective import answer_loss


@dataclass
class Output:
    """Logits (B, A), or (B, M) over candidates, by view, and in training every loss term by name
    (scalars, unweighted).
    """

    logits: dict[str, Tensor]
    terms: dict[str, Tensor] = field(default_factory=dict)


class AVQAModel(nn.Module):
    """A backbone, a missing-modality method and an answer head."""

    def __init__(self, backbone: Backbone, method: Method, head: nn.Module) -> None:
        super().__init__()
        self.backbone = backbone
        self.method = method
        self.head = head
        method.adapt(backbone, backbone.combination())

    @property
    def loss_weights(self) -> dict[str, float]:
        """The weight of every term; a view's answer loss counts once (Eq. 8)."""
        return {"answer": 1.0, **self.backbone.loss_weights, **self.method.loss_weights}

    def forward(self, batch: Batch) -> Output:
        """Training: all views of the method with their terms. Evaluation: one completed view, no
        terms.
        """
        batch = blank_batch(batch)
        features = blank_features(self.backbone.encode(batch), batch.presence)
        if self.training:
            views = self.method.views(features, batch.presence)
            return self.answer_views(views, batch)
        completed = self.method.complete(features, batch.presence)
        answered = self.answer(completed, batch, None)[1]
        return Output({"complete": answered.logits})

    @torch.no_grad()
    def answer_on_noised_real(self, batch: Batch, state: Tensor, scale: tuple[float, float]) -> Tensor:
        """Logits (B, A) by the protocol of the released evaluation code, in which nothing is
        missing.

        What `state` (B, T, 2) calls absent is the real feature plus noise of the standard
        deviations `scale` (audio, visual). For comparison with published figures only: this is the
        one path on which absent values are read.
        """
        features = blank_features(self.backbone.encode(blank_batch(batch)), batch.presence)
        completed = self.method.refine_noised_real(features, state, scale)
        return self.answer(completed, batch, None)[1].logits

    def answer_views(self, views: Views, batch: Batch) -> Output:
        """All views through the backbone as one batch, then one answer loss per view."""
        size, count = len(batch), len(views.features)
        repeated = repeat_batch(batch, count)
        fused, answered = self.answer(concatenate(list(views.features.values())), repeated, repeated.answer)
        logits = answered.logits.split(size)                                        # count x (B, A)
        output = Output(dict(zip(views.features, logits, strict=True)), dict(views.losses))
        for index, (name, view_logits) in enumerate(output.logits.items()):
            output.terms[f"answer_{name}"] = answer_loss(view_logits, batch.answer, self.method.label_smoothing)
            for term, values in (fused.losses | answered.losses).items():           # (count * B,)
                output.terms[f"{term}_{name}"] = values[index * size:(index + 1) * size].mean()
        return output

    def answer(self, features: Features, batch: Batch, target: Tensor | None) -> tuple[Fused, Answered]:
        """Fuse the completed features and let the method read off the logits."""
        fused = self.backbone.fuse(features)
        head = partial(self.head, batch=batch, encode_text=self.backbone.encode_text)
        return fused, self.method.answer(fused, features, head, target)


def blank_batch(batch: Batch) -> Batch:
    """Zeros in every absent raw entry, so that not even a gradient can see what stood there."""
    return replace(
        batch,
        audio=blank(batch.audio, batch.presence[..., AUDIO]),
        visual=blank(batch.visual, batch.presence[..., VISUAL]),
    )


def repeat_batch(batch: Batch, count: int) -> Batch:
    """The batch as the head sees it when `count` views are stacked; heads read the text side only.
    """
    if count == 1:
        return batch
    choices = None if batch.choices is None else batch.choices.repeat(count, 1, 1)
    return replace(batch, words=batch.words.repeat(count, 1), answer=batch.answer.repeat(count), choices=choices)
