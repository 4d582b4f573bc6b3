"""Annotation files to questions, and the records of MUSIC-AVQA with all their real quirks.

A file is one JSON list. In MUSIC-AVQA `type` and `templ_values` are strings that hold JSON lists,
the answer's key is `anser`, some templates end in a blank and one in a full-width question mark;
the `json` files repeat some question ids with contradictory answers, so the row number is what
identifies a question.
"""

from __future__ import annotations

import json
import re
import unicodedata
from abc import ABC, abstractmethod
from pathlib import Path
from typing import Annotated, ClassVar

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, ValidationError, field_validator, model_validator

from dataset.files import refuse_special
from dataset.types import QUESTION_TYPES, DataError, Question

PLACEHOLDER = re.compile(r"<\w+>")


def json_list(value: object) -> object:
    """A string holding a JSON list as that list."""
    if not isinstance(value, str):
        raise ValueError("must be a string that holds a JSON list")
    try:
        return json.loads(value)
    except (ValueError, RecursionError) as error:
        raise ValueError(f"must hold a JSON list, got {value[:80]!r}") from error


JSONList = Annotated[list[str], BeforeValidator(json_list)]
VideoName = Annotated[str, Field(min_length=1, pattern=r"^[\w.#-]+$")]     # it names the feature files
QuestionNumber = Annotated[int, Field(ge=0, lt=2**63)]                     # batches carry it as int64


def ends_in_punctuation(text: str) -> bool:
    return unicodedata.category(text[-1]).startswith("P")


class QuestionRecord(BaseModel, ABC):
    """The schema of one record of a data set as released; other keys are ignored."""

    model_config = ConfigDict(strict=True)
    number_key: ClassVar[str]            # the key of the question's number, for messages

    @abstractmethod
    def to_question(self, row: int) -> Question:
        """The record in position `row` of its file as a question."""


class MusicAVQARecord(QuestionRecord):
    """A record of MUSIC-AVQA."""

    number_key = "question_id"

    video_id: VideoName
    question_id: QuestionNumber
    type: Annotated[JSONList, Field(min_length=2, max_length=2)]
    question_content: Annotated[str, Field(min_length=2)]
    templ_values: JSONList
    anser: Annotated[str, Field(min_length=1)]

    @field_validator("type")
    @classmethod
    def is_known(cls, value: list[str]) -> list[str]:
        if "/".join(value) not in QUESTION_TYPES:
            raise ValueError(f"must be one of {', '.join(QUESTION_TYPES)} as a list of its two parts, got {value}")
        return value

    @field_validator("question_content")
    @classmethod
    def is_asked(cls, value: str) -> str:
        """The last character is always cut off, which must not cost a word its last letter."""
        text = value.rstrip()
        if not text or not ends_in_punctuation(text) or not text[:-1].split():
            raise ValueError(f"must be words that end in a question mark, got {value!r}")
        return value

    @model_validator(mode="after")
    def values_fill_the_placeholders(self) -> MusicAVQARecord:
        slots = [word for word in self.question_content.split() if "<" in word]
        wanted = len(PLACEHOLDER.findall(self.question_content))
        if wanted != len(slots) or not all(PLACEHOLDER.search(word) for word in slots):
            raise ValueError(f"a placeholder must be one word such as <Object>, got {self.question_content!r}")
        if wanted != len(self.templ_values):
            raise ValueError(f"templ_values has {len(self.templ_values)} values for {wanted} placeholders in "
                             f"{self.question_content!r}")
        return self

    def to_question(self, row: int) -> Question:
        return Question(
            row=row, question_id=self.question_id, video_id=self.video_id, type="/".join(self.type),
            template=self.question_content, words=fill(self.question_content, self.templ_values), answer=self.anser,
        )


def fill(template: str, values: list[str]) -> tuple[str, ...]:
    """Words of a question: its end of punctuation is cut, then values are filled in left to right.

    In this order a placeholder at the end keeps all letters of its value.
    """
    words = template.rstrip()[:-1].split()
    remaining = iter(values)
    return tuple(next(remaining) if "<" in word else word for word in words)


def read_questions(path: Path, schema: type[QuestionRecord] = MusicAVQARecord) -> list[Question]:
    """All questions of a file; DataError names file, record, field and what is wrong."""
    refuse_special(path)
    try:
        records = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        raise DataError(f"annotation file {path} does not exist; docs/data.md says where the files belong") from error
    except OSError as error:
        raise DataError(f"annotation file {path} cannot be read ({error.strerror}); it must be a file") from error
    except (ValueError, RecursionError) as error:
        raise DataError(f"annotation file {path} is not JSON in UTF-8 ({error}); download it again") from error
    return to_questions(records, path, schema)


def to_questions(records: object, path: Path, schema: type[QuestionRecord]) -> list[Question]:
    """The records of the annotation file `path` as questions, each checked by `schema`."""
    if not isinstance(records, list) or not records:
        raise DataError(f"annotation file {path} must hold a list of questions, with at least one")
    return [validated(record, row, path, schema).to_question(row) for row, record in enumerate(records)]


def validated(record: object, row: int, path: Path, schema: type[QuestionRecord]) -> QuestionRecord:
    try:
        return schema.model_validate(record)
    except ValidationError as error:
        first = error.errors()[0]
        field = ".".join(str(part) for part in first["loc"]) or "record"
        problem = first["msg"].removeprefix("Value error, ")
        number = record.get(schema.number_key) if isinstance(record, dict) else None
        raise DataError(f"annotation file {path}, record {row} ({schema.number_key} {number!r}), field '{field}': "
                        f"{problem}; correct the record or download the file again") from error
