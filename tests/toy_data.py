"""A few files of every registered data set: a function by its name writes them to `root` and
returns the options."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from commands import write_avqa, write_dataset


def music_avqa(root: Path) -> dict[str, Any]:
    write_dataset(root)
    return {"stride": 2}


def music_avqa_v2(root: Path) -> dict[str, Any]:
    """Numbers absent, null or a float, values as a list, the sound of another video."""
    write_dataset(root)
    (root / "json_v2").mkdir()
    for split, name in (("train", "balance_train"), ("val", "balance_valid"), ("test", "test_balance")):
        records = json.loads((root / "json_update" / f"avqa-{split}.json").read_text())
        for row, record in enumerate(records):
            number = record.pop("question_id")
            record |= ({}, {"question_id": None, "person": "True"}, {"question_id": float(number)})[row % 3]
        last = {"templ_values": json.loads(records[-1]["templ_values"]), "unmatch_audio": records[0]["video_id"],
                "audio_instrument": "theremin", "video_instrument": "kazoo"}
        records[-1] |= last
        (root / "json_v2" / f"{name}.json").write_text(json.dumps(records))
    return {"stride": 2}


def music_avqa_r(root: Path, name: str = "avqa-test-headtail") -> dict[str, Any]:
    """Two questions of each of the test file, in other words, the number the same."""
    write_dataset(root)
    asked = json.loads((root / "json_update" / "avqa-test.json").read_text())
    records = []
    for row, record in enumerate(asked):
        del record["templ_values"], record["question_deleted"]
        for text in ("What, in all, is there to hear?", "Tell me what the video shows"):
            records.append({**record, "question_content": text, "split": ("head", "tail")[row % 2], "x": 0.8})
    (root / "json_update" / f"{name}.json").write_text(json.dumps(records))
    return {"stride": 2}


def fortis_avqa(root: Path) -> dict[str, Any]:
    return music_avqa_r(root, "FortisAVQA-test")


def avqa(root: Path) -> dict[str, Any]:
    write_avqa(root)
    return {"holdout": 0.3}


def synthetic(root: Path) -> dict[str, Any]:
    """Nothing is written: this data set makes itself."""
    return {"train_videos": 12, "val_videos": 4, "test_videos": 4, "channels": 16}
