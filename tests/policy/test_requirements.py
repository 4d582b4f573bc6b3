"""The lists of requirements name what the code imports, each for its purpose."""

import ast
import sys
from importlib.metadata import packages_distributions
from pathlib import Path

import pytest

from scripts.check_environment import lacking, required

ROOT = Path(__file__).resolve().parents[2]
OURS = {"dataset", "models", "engine", "scripts"}
EXTRACT = ROOT / "dataset" / "extract"
TRAINING = [path for folder in ("dataset", "models", "engine") for path in (ROOT / folder).rglob("*.py")
            if EXTRACT not in path.parents]
LISTS = {"train": [*ROOT.glob("main_*.py"), *TRAINING], "video": EXTRACT.rglob("*.py"),
         "page": [ROOT / "scripts/explore.py", *(ROOT / "scripts" / "page").rglob("*.py"), *EXTRACT.rglob("*.py")],
         "reports": [ROOT / "scripts/reproduce.py", *(ROOT / "scripts" / "tables").rglob("*.py"),
                     *(p for p in (ROOT / "scripts" / "study").rglob("*.py") if not p.stem.startswith("fuzz"))]}
WITH_OTHERS = {"pillow", "typing_extensions", "starlette"}      # torchvision, matplotlib, torch and gradio bring them
APART = "page.txt"                       # installed by a line of its own


INSTALLED = packages_distributions()


def distributions(path: Path) -> set[str]:
    """The packages that a file imports, in lower case."""
    modules = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            modules |= {alias.name.split(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            modules.add(node.module.split(".")[0])
    foreign = modules - set(sys.stdlib_module_names) - OURS
    return {INSTALLED.get(name, [name])[0].lower() for name in foreign} - WITH_OTHERS


def names(file: str) -> set[str]:
    return {name.lower() for name in required(ROOT / file)}


@pytest.mark.parametrize("name", LISTS)
def test_a_list_has_what_its_code_imports_and_no_more(name):
    imported = set().union(*map(distributions, LISTS[name]))
    own, train = names(f"requirements/{name}.txt"), names("requirements/train.txt")
    assert imported <= own | train
    assert own - imported <= {"torchvision", "tensorboard"}        # other libraries import these


def test_requirements_txt_installs_all_lists():
    lists = {f"requirements/{path.name}" for path in (ROOT / "requirements").glob("*.txt")} - {f"requirements/{APART}"}
    assert names("requirements.txt") == set().union(*map(names, lists))
    pins = [line for path in lists for line in (ROOT / path).read_text().splitlines() if "==" in line]
    assert len(pins) == len(names("requirements.txt"))


def test_what_is_missing_or_too_old_is_named():
    assert lacking({"numpy": ">=1.0"}) == []
    too_old, missing = lacking({"numpy": ">=999", "no-such-package": ">=1"})
    assert too_old.startswith("numpy>=999 (installed: ") and missing == "no-such-package>=1"
