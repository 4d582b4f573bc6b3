"""Options earn their place: something sets each otherwise; its default is the same everywhere."""

import re
from pathlib import Path

import pytest
import yaml
from golden.defaults import current
from toy import flat

from engine.config import REGISTRIES, compose, load_yaml

ROOT = Path(__file__).resolve().parents[2]
CONFIGS = ROOT / "configs"
OVERRIDE = re.compile(r"(?<![\w.-])((?:\w+\.)*\w+)=([^\s`,;|)\]\"'}]+)")
SHORT = ("rmm", "avr")                   # sections of a method that may be addressed without it
# What another machine, a repetition or a trial of minutes sets.
OPERATIONAL = {
    "dataset=synthetic dataset.channels", "dataset=synthetic dataset.data_seed",
    "dataset=synthetic dataset.noise", "dataset=synthetic dataset.questions_per_video",
    "dataset=synthetic dataset.test_videos", "dataset=synthetic dataset.train_videos",
    "dataset=synthetic dataset.val_videos", "evaluate.batch_size", "evaluate.scenarios", "run.root",
    "runtime.workers", "train.log_every", "train.max_steps", "train.seed",
}


def long(key: str) -> str:
    return f"method.{key}" if key.split(".")[0] in SHORT else key


def parsed(value: str):
    """What an override gives; of `[complete,` at the end of a match, the text."""
    try:
        return float(value) if re.fullmatch(r"[\d.]+e-?\d+", value) else yaml.safe_load(value)
    except yaml.YAMLError:
        return value


def of_text(text: str) -> list[dict]:
    """The overrides of every line."""
    lines = [dict(OVERRIDE.findall(line)) for line in text.splitlines()]
    return [{long(f"{key}.name" if key in REGISTRIES else key): parsed(value) for key, value in line.items()}
            for line in lines if line]


def uses() -> list[dict]:
    """What every preset, ablation, recipe, row of a table and documented command sets."""
    files = [*CONFIGS.glob("*.yaml"), *CONFIGS.glob("ablation/*.yaml"), *CONFIGS.glob("recipe/*.yaml")]
    layers = []
    for path in files:
        layer = load_yaml(path)
        layer |= {kind: {**(layer.get(kind) or {}), "name": name} for kind, name in layer.pop("for", {}).items()}
        if path.name != "default.yaml":
            layers.append({long(key): value for key, value in flat(layer).items()})
    texts = [*CONFIGS.rglob("*.yaml"), *ROOT.glob("*.md"), *(ROOT / "docs").glob("*.md"), *ROOT.glob("main_*.py"),
             *(p for p in (ROOT / "scripts").rglob("*.py") if not p.stem.startswith("fuzz"))]
    return layers + [use for path in texts for use in of_text(path.read_text())]


def options() -> dict[tuple[str, str], object]:
    """(component, key) -> default, of every registered component and of the common sections."""
    defaults = {("", key): value for key, value in flat(compose(None, [])).items()
                if key.split(".")[0] not in REGISTRIES}
    for kind, registry in REGISTRIES.items():
        for name in registry:
            section = {kind: compose(None, [f"{kind}={name}"])[kind]}
            del section[kind]["name"]
            defaults |= {(f"{kind}={name}", key): value for key, value in flat(section).items()}
    return defaults


def test_every_option_is_set_otherwise_somewhere():
    """By a use that names no other component. What none sets should be a constant."""
    everything, unused = uses(), set()
    for (component, key), default in options().items():
        kind, _, name = component.partition("=")
        fitting = (use for use in everything if key in use and (not kind or use.get(f"{kind}.name", name) == name))
        if all(use[key] == default for use in fitting):
            unused.add(f"{component} {key}".strip())
    assert unused <= OPERATIONAL, f"set by nothing: {sorted(unused - OPERATIONAL)}"


@pytest.mark.parametrize("kind,name", [(kind, name) for kind, registry in REGISTRIES.items() for name in registry])
def test_defaults_of_yaml_and_constructor_are_equal(kind, name):
    """tests/golden holds the constructor's to the recorded ones."""
    constructor = flat(current()[f"{kind}.{name}"])
    layer = load_yaml(CONFIGS / kind / f"{name}.yaml")
    written = flat(layer[kind]) | {key: value for section in SHORT if kind == "method"
                                   for key, value in flat({section: layer.get(section, {})}).items()}
    assert {key: value for key, value in written.items() if key in constructor and value != constructor[key]} == {}
