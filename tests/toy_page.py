"""What the page shows in its tests: a small benchmark, short runs, clips, extractors of no cost."""

from __future__ import annotations

from pathlib import Path
from unittest.mock import patch

import numpy as np
from commands import KINDS, write_dataset

from dataset.extract.example import Example, write_video
from dataset.extract.media import Clip

BENCHMARK = ["dataset.train_videos=24", "dataset.val_videos=4", "dataset.test_videos=12", "dataset.channels=16"]
SHORT = ["train.epochs=1", "train.max_steps=2", "train.batch_size=8", "train.log_every=2", "runtime.workers=0",
         "runtime.device=cpu", "evaluate.batch_size=32"]
SMALL = {"rmm_avr": ["rmm.slots=5", "avr.steps=3", "avr.width=8"], "plain": []}
ASKED = f"Is there a {KINDS[0]} sound?"


def train(folder: Path, method: str, *options: str) -> Path:
    """A run of two steps."""
    import main_train

    arguments = ["main_train.py", *options, f"method={method}", *SHORT, *SMALL[method], f"run.root={folder}",
                 f"run.name={method}"]
    with patch("sys.argv", arguments):
        main_train.main()
    return folder / method


def make_scenes(folder: Path) -> tuple[Path, list[Path]]:
    """The benchmark and its runs of rmm_avr and of plain."""
    root = folder / "synthetic"
    options = ["dataset=synthetic", f"dataset.root={root}", *BENCHMARK]
    return root, [train(folder / "runs", method, *options) for method in SMALL]


def make_clip_run(folder: Path) -> Path:
    """A run on features of the shapes that clips have, two seconds each."""
    root = write_dataset(folder / "own", seconds=2, audio=128, visual=512, grid=(14, 14))
    return train(folder / "clips", "plain", "dataset=music_avqa", f"dataset.root={root}", "dataset.stride=1")


def write_clips(folder: Path) -> None:
    for name, example in (("clip", Example(seconds=2)), ("silent", Example(seconds=2, sound=False)),
                          ("dark", Example(seconds=2, picture=False)), ("short", Example(seconds=1))):
        write_video(folder / f"{name}.mp4", example)
    (folder / "text.mp4").write_text("no video")


def build_extractor(name: str, weights: object, device: object):
    """In place of the real one: no network, features of the right shapes that follow the clip."""
    def sound(clip: Clip) -> np.ndarray:
        return np.repeat(np.abs(clip.sound).mean(axis=1, keepdims=True), 128, axis=1)

    def frames(clip: Clip) -> np.ndarray:
        cells = clip.frames[:, ::16, ::16, 0].astype(np.float32) / 255             # (n, 14, 14)
        return np.repeat(cells[:, None], 512, axis=1)

    return sound if name == "vggish" else frames
