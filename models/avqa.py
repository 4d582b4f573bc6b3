"""The composition, and the only file that knows backbone, method and head."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from functools import partial

from torch import Tensor, nn

from dataset.types import AUDIO, VISUAL, Batch
from models.backbones.base import Backbone
from models.features import Features, Fused, blank, blank_features, concatenate
from models.methods.base import Answered, Method, Views
from models.objective import ACROSS, Terms, answer_loss


@dataclass
class Output:
    """Logits (B, A), or (B, M) over candidates, by view; in training all loss terms, unweighted."""

    logits: dict[str, Tensor]
    terms: Terms = field(default_factory=dict)


class AVQAModel(nn.Module):
    """A backbone, a missing-modality method and an answer head: encode -> method -> fuse -> head.

    `label_smoothing`: of every view's answer loss. `frozen`: backbone and head stay as they are and
    answer as in evaluation; the method alone is trained.
    """

    def __init__(
        self, backbone: Backbone, method: Method, head: nn.Module, label_smoothing: float = 0.0, frozen: bool = False
    ) -> None:
        super().__init__()
        self.backbone = backbone
        self.method = method
        self.head = head
        self.label_smoothing, self.frozen = label_smoothing, frozen
        method.adapt(backbone, backbone.combination())
        if frozen:
            backbone.requires_grad_(False)
            head.requires_grad_(False)

    def train(self, mode: bool = True) -> AVQAModel:
        super().train(mode)
        if self.frozen:
            self.backbone.eval()
            self.head.eval()
            for module in self.modules():        # on CUDA a gradient passes an LSTM in training mode alone;
                if isinstance(module, nn.RNNBase):       # of one layer, without dropout, it answers alike
                    module.train(mode)
        return self

    @property
    def loss_weights(self) -> dict[str, float]:
        """The weight of every term; a view's answer loss counts once (Eq. 8)."""
        return {"answer": 1.0, **self.backbone.loss_weights, **self.method.loss_weights}

    def forward(self, batch: Batch) -> Output:
        """Training: all views of the method with their terms. Evaluation: one view, no terms."""
        features = self.encode(batch)
        if self.training:
            return self.answer_views(self.method.views(features.with_(question_id=None)), batch)
        filled = self.method.fill_in(features)
        _, answered = self.answer(filled, repeat_batch(batch, filled.samples), None)
        return Output({"complete": answered.logits})

    def encode(self, batch: Batch) -> Features:
        """Blank before and after: no value and no gradient sees what stood in absent entries."""
        if batch.whole:
            return self.backbone.encode(batch).with_(nothing_absent=batch.nothing_absent)
        return blank_features(self.backbone.encode(blank_batch(batch)), batch.presence)

    def answer_views(self, views: Views, batch: Batch) -> Output:
        """All views through the backbone as one batch, then the losses of each and across them."""
        names, size = list(views.features), len(batch)
        repeated = repeat_batch(batch, len(names))
        fused, answered = self.answer(concatenate(list(views.features.values())), repeated, repeated.answer)
        logits = dict(zip(names, answered.logits.split(size), strict=True))         # (B, A) each
        across = views.losses | self.method.losses(views.features, logits, batch)
        terms = {term: {ACROSS: value} for term, value in across.items()}
        terms["answer"] = {name: answer_loss(logits[name], batch.answer, self.label_smoothing) for name in names}
        for term, values in (fused.losses | answered.losses).items():               # (views * B,)
            terms[term] = {name: part.mean() for name, part in zip(names, values.split(size), strict=True)}
        return Output(logits, terms)

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
    """What heads read, the text side, once for each of `count` stacked views."""
    if count == 1:
        return batch
    choices = None if batch.choices is None else batch.choices.repeat(count, 1, 1)
    return replace(batch, words=batch.words.repeat(count, 1), answer=batch.answer.repeat(count), choices=choices)
