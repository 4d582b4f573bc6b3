"""Three names plus overrides to one checked configuration.

Layers, later ones win: configs/default.yaml, configs/dataset/NAME.yaml,
configs/backbone/NAME.yaml, configs/method/NAME.yaml, the CONFIG.yaml files given, key=value
overrides. The schema of the three components is read off their constructors, so an option exists in
exactly one place. A file may name the components it is `for`.
"""

from __future__ import annotations

import difflib
import inspect
from collections.abc import Sequence
from functools import cache, reduce
from pathlib import Path
from typing import Annotated, Any, Literal, get_args, get_type_hints

from omegaconf import OmegaConf
from pydantic import BaseModel, ConfigDict, Field, ValidationError, create_model, model_validator

from dataset import DATASETS, SCENARIOS
from dataset.files import refuse_special
from engine.errors import SHOWN, UsageError, shown
from engine.legacy import options_of_today
from engine.yaml_layers import fill_in, overlay, parse_override, parse_yaml
from models import BACKBONES, METHODS, resolve

CONFIGS = Path(__file__).resolve().parent.parent / "configs"
REGISTRIES = {"dataset": DATASETS, "backbone": BACKBONES, "method": METHODS}
STRICT = ConfigDict(extra="forbid", allow_inf_nan=False)
Positive = Annotated[int, Field(ge=1, lt=2 ** 31)]
MISTAKES = 5                 # of a configuration that are listed at once
ScenarioName = Literal[tuple(SCENARIOS)]


class Train(BaseModel):
    """Optimisation.

    `init`: a checkpoint whose backbone and head are the start, or null for scratch; `init_method`:
    and what it holds of the method. `frozen`: backbone and head are not trained. `warmup`: share of
    all steps. `patience`: how many validations without a better one end the run.
    """

    model_config = STRICT
    epochs: Annotated[int, Field(ge=0, lt=2 ** 31)]
    max_steps: Positive | None
    batch_size: Positive
    learning_rate: Annotated[float, Field(gt=0)]
    lr_step: Positive
    lr_gamma: Annotated[float, Field(gt=0, le=1)]
    optimiser: Literal["adam", "adamw", "sgd"] = "adam"
    weight_decay: Annotated[float, Field(ge=0)] = 0.0
    beta2: Annotated[float, Field(gt=0, lt=1)] = 0.999
    momentum: Annotated[float, Field(ge=0, lt=1)] = 0.0
    warmup: Annotated[float, Field(ge=0, lt=1)] = 0.0
    schedule: Literal["step", "constant", "linear", "polynomial", "cosine"] = "step"
    patience: Positive | None = None
    label_smoothing: Annotated[float, Field(ge=0, lt=1)] = 0.0
    clip_norm: Annotated[float, Field(gt=0)] | None
    seed: Annotated[int, Field(ge=0, lt=2**32)]
    init: str | None
    init_method: bool = False
    frozen: bool = False
    select_by: Annotated[list[ScenarioName], Field(min_length=1)]
    log_every: Positive

    @model_validator(mode="after")
    def options_act(self) -> Train:
        """An option of an optimiser that is not chosen would be a mistake without a trace."""
        if self.momentum and self.optimiser != "sgd":
            raise ValueError(f"train.momentum={self.momentum} needs train.optimiser=sgd, got {self.optimiser}")
        if self.beta2 != 0.999 and self.optimiser == "sgd":
            raise ValueError(f"train.beta2={self.beta2} needs train.optimiser=adam or adamw, got sgd")
        return self


class Evaluate(BaseModel):
    """`scenarios` are evaluated after training, with the best or the last `checkpoint`.

    `every`: epochs between two validations.
    """

    model_config = STRICT
    scenarios: Annotated[list[ScenarioName], Field(min_length=1)]
    batch_size: Positive
    every: Positive
    checkpoint: Literal["best", "last"] = "best"


class Runtime(BaseModel):
    """Where and how it runs; none of these keys changes what is learnt, save for rounding."""

    model_config = STRICT
    device: Literal["auto", "cpu", "cuda"]
    bf16: bool
    compile: bool
    workers: Annotated[int, Field(ge=0, le=256)]


class Run(BaseModel):
    """`root`/`name` is the run folder; name null: LABEL-BACKBONE-METHOD-sSEED, see `label_of`."""

    model_config = STRICT
    root: str
    name: str | None


def options_of(component: type, sections: dict[str, type] | None = None) -> dict[str, tuple]:
    """The keyword-only parameters of a constructor as pydantic field definitions."""
    hints = get_type_hints(component.__init__, include_extras=True)
    definitions = {}
    for name, parameter in inspect.signature(component.__init__).parameters.items():
        if parameter.kind is not inspect.Parameter.KEYWORD_ONLY:
            continue
        if sections and name in sections:
            inner = create_model(name, __config__=STRICT, enabled=(bool, True), **options_of(sections[name]))
            definitions[name] = (inner, Field(default_factory=inner))
        else:
            default = ... if parameter.default is inspect.Parameter.empty else parameter.default
            definitions[name] = (hints[name], default)
    return definitions


@cache
def schema(**names: str) -> type[BaseModel]:
    """The whole configuration's model for the three chosen components."""
    parts = {}
    for kind, name in names.items():
        component = resolve(REGISTRIES[kind][name])
        fields = options_of(component, getattr(component, "sections", None))
        parts[kind] = (create_model(kind, __config__=STRICT, name=(Literal[name], name), **fields), ...)
    return create_model("Config", __config__=STRICT, **parts, train=(Train, ...), evaluate=(Evaluate, ...),
                        runtime=(Runtime, ...), run=(Run, ...))


def load_yaml(path: Path) -> dict[str, Any]:
    """A YAML file as a dictionary, with `dataset: NAME` spelled out as `dataset: {name: NAME}`."""
    refuse_special(path)
    if not path.is_file():
        raise UsageError(f"configuration file {path} does not exist; see the folder configs/ for those at hand, "
                         "or write an option as key=value")
    layer = parse_yaml(path.read_bytes(), f"configuration file {path}")
    layer = {} if layer is None else layer
    if not isinstance(layer, dict):
        raise UsageError(f"configuration file {path} must hold key: value pairs, got {shown(layer)}")
    return spell_out(layer)


def spell_out(layer: dict[str, Any]) -> dict[str, Any]:
    return {k: v if k not in REGISTRIES or isinstance(v, dict) else {"name": v} for k, v in layer.items()}


def parse_overrides(overrides: list[str]) -> dict[str, Any]:
    """`key=value` arguments as a layer; later ones win."""
    layer: dict[str, Any] = {}
    for item in overrides:
        path, value = parse_override(item)
        for part in reversed([*path, "name"] if path[0] in REGISTRIES and len(path) == 1 else path):
            value = {part: value}
        layer = overlay(layer, value)
    return layer


def choose_names(layers: list[dict[str, Any]]) -> dict[str, str]:
    """The dataset, backbone and method named by the last layer that names them."""
    names = {}
    for kind, registry in REGISTRIES.items():
        chosen = [layer[kind]["name"] for layer in layers if "name" in layer.get(kind, {})]
        for name in map(str, chosen):
            if name not in registry:
                raise UsageError(f"{kind}={shown(name)} is not known; {nearest(name, registry)}")
        names[kind] = chosen[-1]
    return names


def names_of(config: dict[str, Any]) -> dict[str, str]:
    """The three components of a checked configuration."""
    return {kind: config[kind]["name"] for kind in REGISTRIES}


def nearest(name: str, known) -> str:
    known = list(known)
    close = difflib.get_close_matches(name, known, n=1, cutoff=0.5)
    hint = f"did you mean '{close[0]}'? " if close else ""
    return f"{hint}expected one of: {', '.join(sorted(known))}"


def compose(files: str | Sequence[str] | None, overrides: list[str]) -> dict[str, Any]:
    """The resolved, checked configuration as plain nested dictionaries."""
    default = load_yaml(CONFIGS / "default.yaml")
    paths = [Path(file) for file in ([files] if isinstance(files, str) else files or [])]
    asked = [load_yaml(path) for path in paths]
    asked.append(parse_overrides(overrides))
    names = choose_names([default, *asked])
    for path, layer in zip(paths, asked, strict=False):      # the last layer is of no file
        check_chosen(made_for(layer, path), names, path)
    named = [load_yaml(CONFIGS / kind / f"{name}.yaml") for kind, name in names.items()]
    layers = [under_method(for_these(layer, names), names) for layer in [default, *named, *asked]]
    return validate(reduce(overlay, layers))


def made_for(layer: dict[str, Any], path: Path) -> dict[str, str]:
    """Take `for: {backbone: pano_avqa}`, the components it is made for, out of a file's layer."""
    wanted = layer.pop("for", {})
    if not isinstance(wanted, dict) or not wanted.keys() <= REGISTRIES.keys():
        raise UsageError(f"configuration file {path}: 'for' must name a {', a '.join(REGISTRIES)} "
                         f"or several, such as {{backbone: avst}}, got {shown(wanted)}")
    return wanted


def check_chosen(wanted: dict[str, str], names: dict[str, str], path: Path) -> None:
    for kind, name in wanted.items():
        if names[kind] != name:
            name = str(name)[:SHOWN]
            raise UsageError(f"{path} is for {kind}={name}, and {kind}={names[kind]} is chosen; "
                             f"add {kind}={name}, or leave the file out")


def is_for(path: Path, config: dict[str, Any]) -> bool:
    """Whether a file is made for the components of a checked configuration."""
    wanted = made_for(load_yaml(path), path)
    return all(config[kind]["name"] == name for kind, name in wanted.items())


def for_these(layer: dict[str, Any], names: dict[str, str]) -> dict[str, Any]:
    """The layer without its options of a component that a later layer has exchanged."""
    kept = dict(layer)
    for kind, name in names.items():
        written_for = layer.get(kind, {}).get("name", name)
        if written_for != name:
            del kept[kind]
            if kind == "method":
                kept = {key: options for key, options in kept.items() if key not in sections_of(written_for)}
    return kept


def sections_of(method: str) -> dict[str, type]:
    """The parts of a method that have options of their own, by name."""
    return getattr(resolve(METHODS[method]), "sections", {})


def under_method(layer: dict[str, Any], names: dict[str, str]) -> dict[str, Any]:
    """`rmm.slots` may be written for `method.rmm.slots`."""
    short = {k: v for k, v in layer.items() if k in sections_of(names["method"])}
    return overlay({k: v for k, v in layer.items() if k not in short}, {"method": short})


def validate(merged: dict[str, Any]) -> dict[str, Any]:
    """The configuration, its references filled in, checked by the schema of its components."""
    merged = options_of_today(merged)
    model = schema(**names_of(merged))
    try:
        whole = overlay(merged, {"dataset": {"label": label_of(merged)}})          # for ${dataset.label}
        return model.model_validate(fill_in(merged, whole)).model_dump(mode="json")
    except ValidationError as error:
        raise UsageError("; ".join(describe(item, model) for item in error.errors()[:MISTAKES])) from error


def label_of(config: dict[str, Any]) -> str:
    """What names the data set in its runs: its label, or else its name."""
    return config["dataset"].get("label") or config["dataset"]["name"]


def describe(error: dict[str, Any], model: type[BaseModel], kind: str = "configuration key") -> str:
    """One schema error in words: the key, what was expected, the nearest valid key."""
    path = [str(part) for part in error["loc"]]
    key = ".".join(path)
    if error["type"] == "extra_forbidden":
        for part in path[:-1]:
            if part in model.model_fields:                     # else a key of a mapping
                model = model_in(model.model_fields[part].annotation) or model
        return f"unknown {kind} {shown(key)}; {nearest(path[-1], model.model_fields)}"
    if error["type"] == "missing":
        return f"{kind} '{key}' is required; give it a value"
    if error["type"] == "value_error":
        return error["msg"].removeprefix("Value error, ")
    return f"{kind} '{key}': {error['msg'].lower()}, got {shown(error['input'])}"


def model_in(annotation: Any) -> type[BaseModel] | None:
    """The first schema in a type such as dict[str, Schema] or Schema | None."""
    if hasattr(annotation, "model_fields"):
        return annotation
    return next(filter(None, map(model_in, get_args(annotation))), None)


def beyond_defaults(config: dict[str, Any]) -> dict[str, Any]:
    """A checked configuration without the options at the default of their constructor."""
    names = names_of(config)
    kept = schema(**names).model_validate(config).model_dump(mode="json", exclude_defaults=True)
    return kept | {kind: {"name": name, **kept.get(kind, {})} for kind, name in names.items()}


def run_folder(config: dict[str, Any]) -> Path:
    """runs/<label>-<backbone>-<method>-s<seed>/ unless `run.name` says otherwise."""
    names = names_of(config) | {"dataset": label_of(config)}
    name = Path(config["run"]["name"] or "-".join([*names.values(), f"s{config['train']['seed']}"]))
    if name.is_absolute() or ".." in name.parts or not name.parts:
        raise UsageError(f"run.name={shown(str(name))} must name a folder inside run.root, without '..'; to choose "
                         "another place set run.root=FOLDER")
    return Path(config["run"]["root"]) / name


def to_yaml(config: dict[str, Any]) -> str:
    return OmegaConf.to_yaml(OmegaConf.create(config))


def same_options(one: str, other: str) -> bool:
    """Whether two data sets have options of the same names."""
    first, second = (options_of(resolve(DATASETS[name])) for name in (one, other))
    return first.keys() == second.keys()


def override(config: dict[str, Any], overrides: list[str]) -> dict[str, Any]:
    """A checkpoint's configuration with key=value changes, younger options at their defaults.

    The components cannot be exchanged, save for a data set by another with the same options.
    """
    layer, trained = parse_overrides(overrides), names_of(config)
    names = choose_names([{kind: {"name": name} for kind, name in trained.items()}, layer])
    for kind, name in trained.items():
        if names[kind] != name and (kind != "dataset" or not same_options(name, names[kind])):
            raise UsageError(f"the checkpoint was trained with {kind}={name}; {kind} cannot be changed")
    if names["dataset"] != trained["dataset"]:
        config = {**config, "dataset": load_yaml(CONFIGS / "dataset" / f"{names['dataset']}.yaml")["dataset"]}
    return validate(overlay(config, under_method(layer, names)))
