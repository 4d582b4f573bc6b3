"""Rules of the code base: imports, registries and YAML, sizes of files, names of tests."""

import ast
import re
from pathlib import Path

import pytest

from dataset import DATASETS
from engine.config import compose, load_yaml
from models import BACKBONES, METHODS, resolve

ROOT = Path(__file__).resolve().parents[2]
SOURCES = [p for folder in ("dataset", "models", "engine", "scripts") for p in (ROOT / folder).rglob("*.py")]
SOURCES += [ROOT / "main_train.py", ROOT / "main_test.py"]
ALLOWED = {
    "dataset": {"dataset"},
    "models": {"models", "dataset"},
    "engine": {"engine", "models", "dataset"},
    "scripts": {"scripts", "engine", "models", "dataset"},
    "main_train": {"engine", "models", "dataset"},
    "main_test": {"engine", "models", "dataset"},
}
OURS = {"dataset", "models", "engine", "scripts", "main_train", "main_test"}
TESTS = sorted((ROOT / "tests").rglob("*.py"))
REGISTRIES = {"dataset": DATASETS, "backbone": BACKBONES, "method": METHODS}


def imported(path: Path) -> set[str]:
    modules = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            modules |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            modules.add(node.module)
    return modules


@pytest.mark.parametrize("path", SOURCES, ids=lambda p: str(p.relative_to(ROOT)))
def test_imports_go_one_way(path):
    package = path.relative_to(ROOT).parts[0].removesuffix(".py")
    ours = {m for m in imported(path) if m.split(".")[0] in OURS}
    assert {m.split(".")[0] for m in ours} <= ALLOWED[package]
    relative = str(path.relative_to(ROOT))
    if relative.startswith("models/backbones"):
        assert not any(m.startswith("models.methods") for m in ours)
        assert {m for m in ours if m.startswith("dataset")} <= {"dataset.types"}
    if relative.startswith(("models/methods", "models/rmm_avr")):
        assert not any(m.startswith("models.backbones") for m in ours)


@pytest.mark.parametrize("kind", REGISTRIES)
def test_every_name_has_a_class_and_a_yaml(kind):
    """Every registered name has a class and a yaml that composes."""
    for name, path in REGISTRIES[kind].items():
        assert resolve(path).__doc__
        assert compose(None, [f"{kind}={name}"])[kind]["name"] == name
        assert (ROOT / "configs" / kind / f"{name}.yaml").read_text().startswith("#")
    assert {p.stem for p in (ROOT / "configs" / kind).glob("*.yaml")} == set(REGISTRIES[kind])


@pytest.mark.parametrize("path", sorted((ROOT / "configs").glob("ablation/*.yaml")) + sorted(
    p for p in (ROOT / "configs").glob("*.yaml") if p.name != "default.yaml"), ids=lambda p: p.name)
def test_every_run_configuration_composes_and_names_its_command(path):
    assert compose(str(path), [])["run"] is not None
    command = "bash train.sh (both stages)" if path.name == "embedded.yaml" else str(path.relative_to(ROOT))
    assert command in path.read_text()


@pytest.mark.parametrize("path", sorted((ROOT / "configs" / "ablation").glob("*.yaml")), ids=lambda p: p.name)
def test_an_ablation_changes_its_own_options_alone(path):
    """An ablation changes its own options of whatever it is laid over."""
    layer = load_yaml(path)
    own = set(layer) - {"run", "method"} | set(layer.get("method", {}))
    for base, data in (("embedded", "synthetic"), ("paper", "music_avqa")):
        file, overrides = f"configs/{base}.yaml", [f"dataset={data}", "dataset.root=x"]
        before, after = compose(file, overrides), compose([file, str(path)], overrides)
        assert after["run"]["name"].startswith(data) and after["train"] == before["train"]
        changed = {key for key, value in after["method"].items() if value != before["method"][key]}
        assert changed and changed <= own


def test_no_file_has_more_than_330_lines():
    long = {str(path.relative_to(ROOT)) for path in [*SOURCES, *TESTS] if len(path.read_text().splitlines()) > 330}
    assert long == set()


def test_functions_fit_on_a_screen():
    long = []
    for path in SOURCES:
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.FunctionDef) and node.end_lineno - node.lineno > 60:
                long.append(f"{path}:{node.name}")
    assert long == []


def test_tracked_text_names_no_machine_path():
    for path in SOURCES:
        assert not re.search(r"[\"']/(?!dev/|proc/)\w+/", path.read_text()), path


def test_names_of_tests_are_short():
    """At most 60 characters; the sentence stands in the docstring."""
    long = [name for path in TESTS for name in re.findall(r"^def (test_\w{56,})", path.read_text(), re.M)]
    assert long == []
