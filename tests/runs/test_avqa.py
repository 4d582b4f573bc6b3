"""The real commands on a data set with candidates: train, evaluate, read the result files."""

import json

import pytest
import toy_data
from commands import SHORT, write_avqa

from dataset.types import AVQA_TYPES


def test_a_run_with_candidates_reports_the_eight_types(tmp_path, in_process):
    """It trains, evaluates, and is evaluated again with another batch size."""
    data = write_avqa(tmp_path / "data")
    code, out, err = in_process("main_train.py", "dataset=avqa", f"dataset.root={data}", "dataset.holdout=0.2", *SHORT,
                                "train.epochs=1", f"run.root={tmp_path / 'runs'}", "run.name=r")
    assert code == 0, err
    folder = tmp_path / "runs" / "r"
    results = json.loads((folder / "results.json").read_text())["scenarios"]
    assert set(results) == {"complete", "audio_missing", "visual_missing"}
    for result in results.values():
        assert set(result["by_type"]) == set(result["question_only_floor_by_type"]) == set(AVQA_TYPES)
        assert result["by_modality"] == {} and result["oracle"] is None and result["n"] == 4 * len(AVQA_TYPES)
    records = [json.loads(line) for line in (folder / "predictions.jsonl").read_text().splitlines()]
    assert {r["prediction"] for r in records} <= {"theremin", "kazoo", "null", "808"}
    complete = [r["prediction"] == r["answer"] for r in records if r["scenario"] == "complete"]
    assert results["complete"]["overall"] == pytest.approx(100 * sum(complete) / len(complete))
    assert "Before Next" in out and "A Cnt" not in out and "outside the vocabulary" not in out
    before = json.loads((folder / "results.json").read_text())["scenarios"]["complete"]
    code, _, err = in_process("main_test.py", "--checkpoint", folder, "--missing", "all", "evaluate.batch_size=5")
    assert code == 0, err
    after = json.loads((folder / "results.json").read_text())["scenarios"]
    assert len(after) == 4 and after["complete"] == before


def test_a_checkpoint_answers_another_release(tmp_path, in_process):
    """Rephrased questions to a model of MUSIC-AVQA: what it has seen; head, tail and both."""
    root = tmp_path / "data"
    toy_data.music_avqa_r(root)
    run = [f"run.root={tmp_path / 'runs'}", "run.name=r", "method=plain", "backbone=avst"]
    code, _, err = in_process("main_train.py", "dataset=music_avqa", f"dataset.root={root}", "dataset.stride=2",
                              *[o for o in SHORT if not o.startswith(("rmm", "avr"))], "train.max_steps=2", *run)
    assert code == 0, err
    code, out, err = in_process("main_test.py", "--checkpoint", tmp_path / "runs" / "r", "dataset=music_avqa_r",
                                f"dataset.root={root}", "dataset.stride=2")
    assert code == 0, err
    assert "none of these questions stands in training or validation of dataset=music_avqa" in out
    assert "48 of 48 questions hold words that training never saw" in out
    assert [line.split()[0] for line in out.splitlines() if line.startswith(" ")][:3] == ["head", "tail", "floor"]
    path, = (path for path in (tmp_path / "runs" / "r").glob("results-*.json"))
    result = json.loads(path.read_text())["scenarios"]["complete"]
    assert {name: cell["n"] for name, cell in result["by_part"].items()} == {"head": 24, "tail": 24}
    assert result["n"] == 48
