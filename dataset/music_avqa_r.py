"""MUSIC-AVQA-R and FortisAVQA: the test questions of MUSIC-AVQA rephrased some 23 times each.

For tests alone: training and validation are those of MUSIC-AVQA. A record has no template, not
always a question mark, the number of the original question, and `split`: whether its answer is
frequent (head) or rare (tail) among questions of its type.
"""

from dataclasses import dataclass, replace
from typing import Annotated, Literal

from pydantic import BeforeValidator, field_validator

from dataset.music_avqa import MusicAVQA
from dataset.music_avqa_v2 import V2Record, as_list
from dataset.questions import read_questions
from dataset.types import Question

PUNCTUATION = ',.;:!?\uff1f"()'          # at the ends of words; an apostrophe inside one stays


class RephrasedRecord(V2Record):
    """A record of MUSIC-AVQA-R or FortisAVQA; those of the other releases are read as well."""

    templ_values: Annotated[list[str], BeforeValidator(as_list)] = []
    split: Literal["head", "tail"] | None = None

    @field_validator("question_content")
    @classmethod
    def is_asked(cls, value: str) -> str:
        """The words without punctuation, one question mark behind them."""
        words = [word.strip(PUNCTUATION) for word in value.split()]
        if not any(words):
            raise ValueError(f"must be words, got {value!r}")
        return " ".join(filter(None, words)) + "?"

    def to_question(self, row: int) -> Question:
        return replace(super().to_question(row), part=self.split)


@dataclass(kw_only=True, eq=False)
class MusicAVQAR(MusicAVQA):
    """ROOT/ANNOTATIONS/avqa-test-headtail.json beside the files of MUSIC-AVQA.

    Results are for all questions and for `head` and `tail` apart. The options are those of
    MusicAVQA.
    """

    test_file: str = "avqa-test-headtail.json"

    def read_split(self, split: str) -> list[Question]:
        if split == "test":
            return read_questions(self.annotation_file(split), RephrasedRecord)
        return super().read_split(split)


@dataclass(kw_only=True, eq=False)
class FortisAVQA(MusicAVQAR):
    """The same with ROOT/ANNOTATIONS/FortisAVQA-test.json."""

    test_file: str = "FortisAVQA-test.json"
