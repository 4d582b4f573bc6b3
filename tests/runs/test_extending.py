"""docs/extending.md, followed to the letter in a copy of the project."""

import json
import os
import re
import shutil
import subprocess
import sys

import pytest
from commands import ROOT

PAGE = (ROOT / "docs" / "extending.md").read_text()
TINY = ["train.max_steps=2", "train.epochs=1", "train.batch_size=8"]


@pytest.fixture(scope="module")
def extended(tmp_path_factory):
    """The project with the page's files and registry lines."""
    copy = tmp_path_factory.mktemp("extended") / "project"
    copy.mkdir()
    for name in ("configs", "dataset", "models", "engine", "scripts", "tests"):
        shutil.copytree(ROOT / name, copy / name, ignore=shutil.ignore_patterns("__pycache__"))
    for name in ("main_train.py", "main_test.py", "pyproject.toml", "README.md"):
        shutil.copy(ROOT / name, copy / name)
    files = re.findall(r"^`([\w/]+\.(?:py|yaml))`\n\n```\w+\n(.*?)```", PAGE, re.MULTILINE | re.DOTALL)
    assert len(files) == 8
    for path, text in files:
        assert not (copy / path).exists()
        (copy / path).write_text(text)
    lines = re.findall(r"^`([\w/]+\.py)` gets one line:\n\n```python\n(.*?)```", PAGE, re.MULTILINE | re.DOTALL)
    assert len(lines) == 4
    for path, line in lines:
        registry = (copy / path).read_text()
        (copy / path).write_text(registry.replace("\n}\n", f"\n{line}}}\n", 1))
    toy, = re.findall(r"^```python\n(def spreadsheet.*?)```", PAGE, re.MULTILINE | re.DOTALL)
    with open(copy / "tests/toy_data.py", "a") as file:
        file.write("\n\n" + toy)
    return copy


def run(folder, *command: str) -> subprocess.CompletedProcess:
    environment = dict(os.environ, OMP_NUM_THREADS="1", CUDA_VISIBLE_DEVICES="")
    return subprocess.run([sys.executable, *command], cwd=folder, env=environment, capture_output=True, text=True)


def test_the_examples_pass_laws_and_policies(extended):
    done = run(extended, "-m", "pytest", "-x", "tests/contracts", "tests/policy/test_policy.py", "-k",
               "(gated_mean and (rmm_avr or constant)) or (avst and (constant or consistency)) or spreadsheet or "
               "imports or registered or screen")
    assert done.returncode == 0, done.stdout[-3000:]
    assert int(re.search(r"(\d+) passed", done.stdout)[1]) > 100


def test_the_examples_train_and_are_evaluated(extended):
    """The data set, the backbone and both methods of the page; a loss across views counts."""
    methods = ("constant", "consistency")
    commands = [["main_train.py", "dataset=spreadsheet", "backbone=gated_mean", f"method={m}", *TINY] for m in methods]
    done = run(extended, "-c", f"""
import runpy, sys
from pathlib import Path
sys.path[:0] = [".", "tests"]
import toy_data
toy_data.spreadsheet(Path("data/spreadsheet"))
for sys.argv in {commands}:
    runpy.run_path(sys.argv[0], run_name="__main__")
""")
    assert done.returncode == 0, done.stderr[-3000:]
    for method in methods:
        folder = extended / "runs" / f"spreadsheet-gated_mean-{method}-s1"
        assert (folder / "results.json").is_file()
    losses = json.loads((folder / "metrics.jsonl").read_text().splitlines()[-1])["loss"]
    assert losses["consistency"] > 0 and losses.pop("total") == pytest.approx(sum(losses.values()))
