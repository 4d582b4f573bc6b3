"""AVQA (Yang et al., ACM MM 2022): questions on real-life clips with four candidates each."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from typing import Annotated, Literal

from pydantic import BeforeValidator, Field, field_validator

from dataset.base import FolderDataSet
from dataset.questions import QuestionNumber, QuestionRecord, VideoName, ends_in_punctuation, read_questions
from dataset.store import Stride
from dataset.types import AVQA_TYPES, DataError, Question


def as_text(value: object) -> object:
    """The release writes some candidates as null or a number; they are text all the same."""
    if value is None:
        return "null"
    return str(value) if isinstance(value, int | float) and not isinstance(value, bool) else value


Candidate = Annotated[str, BeforeValidator(as_text)]


class AVQARecord(QuestionRecord):
    """A record of AVQA; `question_relation` and `video_id`, a clip's number, are not used."""

    number_key = "id"

    id: QuestionNumber
    video_name: VideoName
    question_text: str
    multi_choice: Annotated[list[Candidate], Field(min_length=4, max_length=4)]
    answer: Annotated[int, Field(ge=0, le=3)]
    question_type: Literal[AVQA_TYPES]

    @field_validator("question_text")
    @classmethod
    def has_words(cls, value: str) -> str:
        if not split_question(value):
            raise ValueError(f"must be words that end in a question mark, got {value!r}")
        return value

    def to_question(self, row: int) -> Question:
        choices = tuple(tuple(text.lower().split()) for text in self.multi_choice)
        return Question(
            row=row, question_id=self.id, video_id=self.video_name, type=self.question_type, choices=choices,
            template=self.question_text, words=split_question(self.question_text),
            answer=" ".join(choices[self.answer]),
        )


def split_question(text: str) -> tuple[str, ...]:
    """Lower-case words without the final punctuation, as in the official preprocessing."""
    text = text.rstrip().lower()
    return tuple((text[:-1] if text and ends_in_punctuation(text) else text).split())


def is_held_out(video: str, share: float) -> bool:
    """Whether a video is among the `share` kept for validation: a function of its name alone."""
    digest = hashlib.sha256(video.encode()).digest()
    return int.from_bytes(digest[:8], "big") < share * 2 ** 64


@dataclass(kw_only=True, eq=False)
class AVQA(FolderDataSet):
    """ROOT/ANNOTATIONS/{train,val}_qa.json and ROOT/feats/{vggish,res18_14x14}/VIDEO_NAME.npy, ten
    rows per video.

    The release has no test file. `test` is therefore its validation file, and selection uses other
    videos: a share `holdout` of those in the training file is `val`, the others are `train`. The
    other options are those of FolderDataSet.
    """

    annotations: str = "json"
    train_file: str = "train_qa.json"
    test_file: str = "val_qa.json"
    stride: Stride = 1
    holdout: Annotated[float, Field(gt=0, lt=1)] = 0.05

    @property
    def val_file(self) -> str:
        return self.train_file

    def read_split(self, split: str) -> list[Question]:
        """The test file, or the questions of the training file whose videos belong to `split`."""
        path = self.annotation_file(split)
        questions = read_questions(path, AVQARecord)
        if split == "test":
            return questions
        kept = [q for q in questions if is_held_out(q.video_id, self.holdout) == (split == "val")]
        if not kept:
            raise DataError(f"dataset.holdout={self.holdout} leaves no video of {path} for {split}; choose another")
        return kept
