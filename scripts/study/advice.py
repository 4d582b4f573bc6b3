"""What to do about what a data set lacks, and how to train on it: for scripts/check_dataset.py."""

from __future__ import annotations

import json
import shlex
from pathlib import Path

from dataset.base import DataSet, FolderDataSet
from dataset.extract import EXTRACTORS
from dataset.extracted import SETTINGS

SMALL = 10_000                           # training questions, below which the paper's schedule fits badly
OWN = ["configs/own_data_plain.yaml", "configs/own_data.yaml"]
PAPER = ["configs/paper_plain.yaml", "configs/paper.yaml"]
SHOWN = 5                                # files to delete that are named


def on_annotations(data: DataSet, unread: list[str]) -> list[str]:
    """Where the annotations of the splits belong that could not be read."""
    files = [data.annotation_file(split) for split in unread]
    return [f"correct {file}, as said above" if file.is_file() else f"write {file} (format: docs/data.md, section 4)"
            for file in files]


def on_features(data: DataSet, damaged: list[Path]) -> list[str]:
    """How to make files that are missing, and `damaged` ones again."""
    if not isinstance(data, FolderDataSet):
        return ["make the missing features; docs/data.md"]
    if data.features == "packed":
        return [f"rm -r {shlex.quote(str(data.root / data.packed_folder))}, if anything there is damaged",
                f"python scripts/pack_features.py {shlex.quote(str(data.root))} --stride STRIDE"]
    removal = [shlex.join(["rm", *map(str, damaged[:SHOWN])])] if damaged else []
    more = [f"check again: {len(damaged) - SHOWN} more are damaged"] if len(damaged) > SHOWN else []
    return [*removal, extraction(data), *more]


def on_question_features(data: FolderDataSet, name: str) -> list[str]:
    """How to have the questions of the data set `name` read by CLIP."""
    files = dict.fromkeys(str(data.annotation_file(split)) for split in ("train", "val", "test"))
    written = {"fortis_avqa": "music_avqa_r"}.get(name, name)
    return [f"{extraction(data)} --question-format {written} --questions {shlex.join(files)}"]


def extraction(data: FolderDataSet) -> str:
    """The command that extracts what is not there, with the options of the first time."""
    folders = [Path(folder).name for folder in (data.audio_folder, data.visual_folder)]
    features = ["--features", *folders] if set(folders) <= EXTRACTORS.keys() else []
    command = shlex.join(["python", "scripts/extract_features.py", "VIDEOS", str(data.root / "feats"), *features])
    try:
        settings = json.loads((data.root / "feats" / SETTINGS).read_bytes())
        return f"{command} {shlex.join(str(part) for key, value in settings.items() for part in (f'--{key}', value))}"
    except (OSError, ValueError, AttributeError, RecursionError):
        return f"{command} --seconds SECONDS"


def commands(files: list[str], changes: list[str], train: int) -> list[str]:
    """What trains on a data set of so many training questions; first what prints the cost of it."""
    own = train < SMALL and {Path(file).resolve() for file in files} <= {Path(file).resolve() for file in OWN}
    stages = OWN if own else [shlex.join(files)] if files else PAPER
    named = not own or any(change.startswith("dataset.label=") for change in changes)
    given = shlex.join([*changes, *([] if named else ["dataset.label=NAME"])])
    cost = f"python scripts/benchmark.py run {stages[-1]} {given}"
    return [cost, *(f"bash train.sh {stage} {given}" for stage in stages)]
