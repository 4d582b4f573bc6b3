"""From names and options to a model; the registries are the one place that lists what exists."""

from __future__ import annotations

from importlib import import_module

from dataset.types import DataSpec
from models.avqa import AVQAModel
from models.backbones import BACKBONES
from models.features import FeatureShape
from models.heads import MultipleChoice, OpenVocabulary
from models.methods import METHODS


def resolve(path: str) -> type:
    """The class behind a registry entry `package.module.Class`."""
    module, name = path.rsplit(".", 1)
    return getattr(import_module(module), name)


def build_model(
    spec: DataSpec, backbone: dict, method: dict, label_smoothing: float = 0.0, frozen: bool = False
) -> AVQAModel:
    """`backbone`, `method`: a `name` and the keywords of its class; OptionError if unfit."""
    backbone, method = dict(backbone), dict(method)
    body = resolve(BACKBONES[backbone.pop("name")])(spec, **backbone)
    shape = FeatureShape(spec.segments, spec.grid, body.dim, 0 if spec.choices else spec.answers)
    completion = resolve(METHODS[method.pop("name")])(shape, **method)
    head = MultipleChoice(body.dim) if spec.choices else OpenVocabulary(body.dim, spec.answers)
    return AVQAModel(body, completion, head, label_smoothing, frozen)
