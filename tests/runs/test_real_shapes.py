"""The commands on real annotations with features of the real shapes, and on the embedded data."""

import json
from pathlib import Path

import numpy as np
import pytest

REAL = Path(__file__).resolve().parents[3] / "shared" / "data" / "music_avqa"


@pytest.mark.skipif(not REAL.is_dir(), reason="the real annotations are not at hand")
def test_music_avqa_annotations_with_features_of_the_real_shapes(tmp_path, in_process):
    rng, videos = np.random.default_rng(0), []
    for split in ("train_fake", "val"):
        records = json.loads((REAL / f"avqa-{split}.json").read_text())
        videos += sorted({r["video_id"] for r in records})[:12]
    for folder, shape in (("vggish", (60, 128)), ("res18_14x14", (60, 512, 14, 14))):
        (tmp_path / "feats" / folder).mkdir(parents=True)
        for video in videos:
            np.save(tmp_path / "feats" / folder / f"{video}.npy", rng.random(shape, dtype=np.float32))
    files = ["train_file=avqa-train_fake.json", "val_file=avqa-val.json", "test_file=avqa-val.json"]
    code, out, err = in_process(
        "main_train.py", "dataset=music_avqa", f"dataset.root={tmp_path}", f"dataset.annotations={REAL}",
        *(f"dataset.{f}" for f in files), "dataset.skip_missing=true", "train.max_steps=1", "train.batch_size=2",
        "avr.steps=2", "runtime.workers=0", f"run.root={tmp_path / 'runs'}", "run.name=r",
        "evaluate.batch_size=4",
    )
    assert code == 0, err
    assert "questions kept" in out
    folder = tmp_path / "runs" / "r"
    code, out, err = in_process("main_test.py", "--checkpoint", folder, "--missing", "audio", "--segments", "0.3")
    assert code == 0, err
    scenarios = json.loads((folder / "results.json").read_text())["scenarios"]
    assert {"complete", "audio_missing", "visual_missing", "audio_missing-segments0.3"} == set(scenarios)
    assert scenarios["complete"]["oracle"] is None and scenarios["complete"]["n"] > 10


def test_the_embedded_benchmark_from_nothing(tmp_path, in_process):
    code, out, err = in_process(
        "main_train.py", "method=plain", f"dataset.root={tmp_path / 'data'}", "dataset.train_videos=40",
        "dataset.val_videos=10", "dataset.test_videos=10", "dataset.channels=16", "train.max_steps=2",
        f"run.root={tmp_path / 'runs'}", "run.name=r",
    )
    assert code == 0, err
    results = json.loads((tmp_path / "runs/r/results.json").read_text())["scenarios"]
    assert results["complete"]["oracle"] == 100 > results["visual_missing"]["oracle"] > 0
    assert "oracle" in out and "floor" in out
