"""The real commands on a data set with candidates: train, evaluate, read the result files."""

import json

import pytest
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
