"""Questions of one annotation file that stand in another: their answers may have been seen."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

from dataset import build_dataset
from dataset.music_avqa_r import RephrasedRecord
from dataset.questions import read_questions
from dataset.types import DataError, Question


def wording(question: Question) -> tuple:
    """The video, the sound and the words of the text, without punctuation and upper case."""
    return question.video_id, question.sound, *re.findall(r"\w+", " ".join(question.words).lower())


def doubles(questions: list[Question], others: list[Question]) -> int:
    """How many of `questions` stand among `others`: the same words on the same video and sound.

    A rephrased question has the number of the original.
    """
    texts = set(map(wording, others))
    numbers = {(q.video_id, q.question_id) for q in others}
    return sum(wording(q) in texts or bool(q.part) and (q.video_id, q.question_id) in numbers
               for q in questions)


def other_releases(root: Path, own: set[Path]) -> dict[Path, list[Question]]:
    """The questions of every annotation file ROOT/FOLDER/NAME.json of the MUSIC-AVQA family, but of
    the files `own`.
    """
    releases = {}
    for path in sorted(root.glob("*/*.json")):
        try:
            if path not in own:
                releases[path] = read_questions(path, RephrasedRecord)
        except DataError:            # of another kind
            continue
    return releases


def note_on_doubles(asked: list[Question], trained_on: dict[str, Any]) -> str:
    """How many of the questions `asked` a checkpoint trained on that data set has seen."""
    name = f"dataset={trained_on['name']}, which the checkpoint was trained on"
    try:
        data = build_dataset(trained_on)
        seen = {split: doubles(asked, data.read_split(split)) for split in ("train", "val")}
    except DataError as error:
        return f"note: it is not known how many of these questions stand in {name}: {error}"
    if not any(seen.values()):
        return f"none of these questions stands in training or validation of {name}"
    return (f"warning: of these {len(asked)} questions {seen['train']} stand in training and {seen['val']} in "
            f"validation of {name}; what follows is too high")
