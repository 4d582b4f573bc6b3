"""A user's own tiny data sets as MUSIC-AVQA and AVQA lay them out, of other shapes, T and words."""

from __future__ import annotations

import json
import runpy
import subprocess
import sys
from contextlib import chdir, redirect_stderr, redirect_stdout
from io import StringIO
from pathlib import Path
from subprocess import CompletedProcess
from unittest.mock import patch

import numpy as np
import pytest

from dataset.types import AVQA_TYPES

ROOT = Path(__file__).resolve().parents[1]
SHORT = [
    "train.epochs=2", "train.batch_size=8", "train.learning_rate=1e-3",
    "train.log_every=2", "runtime.workers=0", "runtime.device=cpu", "rmm.slots=5", "avr.steps=2", "avr.width=8",
]
SMALL = ["dataset=music_avqa", "dataset.stride=2", *SHORT]
KINDS = ("theremin", "kazoo", "lute")


def write_features(root: Path, name: str, code: np.ndarray, rng: np.random.Generator, seconds: int, audio: int,
                   grid: tuple[int, int]) -> None:
    """`code` (audio + visual channels) plus noise in every second and cell of one video."""
    for folder in ("vggish", "res18_14x14"):
        (root / "feats" / folder).mkdir(parents=True, exist_ok=True)
    noise = rng.random((seconds, audio)).astype(np.float32) * 0.1
    np.save(root / "feats/vggish" / f"{name}.npy", code[:audio] + noise)
    noise = rng.random((seconds, len(code) - audio, *grid)).astype(np.float32) * 0.1
    np.save(root / "feats/res18_14x14" / f"{name}.npy", code[audio:, None, None] + noise)


def write_dataset(root: Path, videos: int = 8, seconds: int = 6, audio: int = 5, visual: int = 16, grid=(2, 2)) -> Path:
    """Every video shows and sounds one of three kinds; three questions per video in each split."""
    rng = np.random.default_rng(0)
    codes = rng.random((3, audio + visual)).astype(np.float32)
    (root / "json_update").mkdir(parents=True)
    number = 0
    for split in ("train", "val", "test"):
        records = []
        for v in range(videos):
            kind, name = v % 3, f"{split}{v:04d}"
            write_features(root, name, codes[kind], rng, seconds, audio, grid)
            for text, values, answer, type_ in (
                ("Is there a <Object> sound?", [KINDS[kind]], "yes", ["Audio", "Counting"]),
                ("What kind of musical instrument is it?", [], KINDS[kind], ["Visual", "Location"]),
                ("Where is the loudest <Object>?", [KINDS[kind]], "stage", ["Audio-Visual", "Location"]),
            ):
                number += 1
                records.append({"video_id": name, "question_id": number, "type": json.dumps(type_),
                                "question_content": text, "templ_values": json.dumps(values), "question_deleted": 0,
                                "anser": answer})
        (root / "json_update" / f"avqa-{split}.json").write_text(json.dumps(records))
    return root


def shorten(root: Path, rows: dict[str, tuple[int, int]]) -> None:
    """Cut the feature files of some videos to that many rows of sound and of picture."""
    for video, counts in rows.items():
        for folder, count in zip(("vggish", "res18_14x14"), counts, strict=True):
            path = root / "feats" / folder / f"{video}.npy"
            np.save(path, np.load(path)[:count])


def write_avqa(root: Path, videos: int = 24) -> Path:
    """Every video shows and sounds one of four kinds, and is asked for in all eight types."""
    rng = np.random.default_rng(0)
    kinds = ["Theremin", "Kazoo", None, 808]         # the release, too, has candidates that are null or a number
    codes = rng.random((len(kinds), 5 + 16)).astype(np.float32)
    (root / "json").mkdir(parents=True)
    for file, count in (("train_qa", videos), ("val_qa", 4)):
        records = []
        for v in range(count):
            kind, name = int(rng.integers(len(kinds))), f"-{file}{v:03d}_000030"
            write_features(root, name, codes[kind], rng, seconds=3, audio=5, grid=(2, 2))
            for type_ in AVQA_TYPES:
                order = rng.permutation(len(kinds)).tolist()
                records.append({"id": len(records), "video_name": name, "video_id": v,
                                "question_text": f"{type_} is it?", "multi_choice": [kinds[i] for i in order],
                                "answer": order.index(kind), "question_relation": "Both", "question_type": type_})
        (root / "json" / f"{file}.json").write_text(json.dumps(records))
    return root


@pytest.fixture(scope="session")
def own_data(tmp_path_factory) -> Path:
    return write_dataset(tmp_path_factory.mktemp("own") / "data")


@pytest.fixture
def small(own_data, tmp_path) -> list[str]:
    """Overrides of a run of seconds on that data set, into a folder of its own."""
    return [*SMALL, f"dataset.root={own_data}", f"run.root={tmp_path / 'runs'}", "run.name=r"]


def command(script: str, *arguments: object) -> CompletedProcess:
    """The command inside the test process, which saves three seconds of imports."""
    argv, out, err = [str(ROOT / script), *map(str, arguments)], StringIO(), StringIO()
    with redirect_stdout(out), redirect_stderr(err), chdir(ROOT), patch.object(sys, "argv", argv), \
            patch.object(sys, "path", sys.path[:]):
        try:
            runpy.run_path(argv[0], run_name="__main__")
            code = 0
        except SystemExit as stop:
            code = stop.code or 0
    return CompletedProcess(argv, code, out.getvalue(), err.getvalue())


@pytest.fixture
def in_process():
    """The same: exit code, stdout, stderr."""
    def call(script: str, *arguments: object) -> tuple[int, str, str]:
        done = command(script, *arguments)
        return done.returncode, done.stdout, done.stderr

    return call


def shell(script: str, *arguments: object) -> CompletedProcess:
    """The command in a process of its own."""
    return subprocess.run([sys.executable, str(ROOT / script), *map(str, arguments)], capture_output=True, text=True,
                          cwd=ROOT, timeout=300)
