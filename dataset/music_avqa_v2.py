"""MUSIC-AVQA-v2.0 (Liu et al., WACV 2024): MUSIC-AVQA balanced by new questions.

Its files differ from those of the first release: `question_id` is absent, null or a float, and
`templ_values` may be a list. `unmatch_audio` names the video whose sound is laid under the picture;
what else such records hold (`audio_instrument`, `video_instrument`, `person`) is not used. New
videos have YouTube's names, some with `_#02` for another part or `_flip` for the mirror image.
"""

from __future__ import annotations

import zlib
from dataclasses import dataclass, replace
from typing import Annotated

from pydantic import BeforeValidator

from dataset.music_avqa import MusicAVQA
from dataset.questions import MusicAVQARecord, QuestionNumber, VideoName, json_list, read_questions
from dataset.types import Question

UNNUMBERED = 10 ** 9         # numbers from here on are given to questions that have none


def whole(value: object) -> object:
    """A float that is a whole number as an integer."""
    return int(value) if isinstance(value, float) and value.is_integer() else value


def as_list(value: object) -> object:
    return value if isinstance(value, list) else json_list(value)


class V2Record(MusicAVQARecord):
    """A record of MUSIC-AVQA-v2.0."""

    question_id: Annotated[QuestionNumber | None, BeforeValidator(whole)] = None
    templ_values: Annotated[list[str], BeforeValidator(as_list)]
    unmatch_audio: VideoName | None = None

    def to_question(self, row: int) -> Question:
        """A question without a number gets one that its text and video alone decide."""
        question = replace(super().to_question(row), sound=self.unmatch_audio)
        if self.question_id is not None:
            return question
        content = " ".join((self.video_id, self.unmatch_audio or "", *question.words))
        return replace(question, question_id=UNNUMBERED + zlib.crc32(content.encode()) % UNNUMBERED)


@dataclass(kw_only=True, eq=False)
class MusicAVQAv2(MusicAVQA):
    """ROOT/ANNOTATIONS/{balance_train,balance_valid,test_balance}.json beside the features.

    These are the balanced files as AIM-SKKU/QA-TIGER divides them; configs/music_avqa_v2_bias.yaml
    takes the bias set. The options are those of MusicAVQA.
    """

    annotations: str = "json_v2"
    train_file: str = "balance_train.json"
    val_file: str = "balance_valid.json"
    test_file: str = "test_balance.json"

    def read_split(self, split: str) -> list[Question]:
        return read_questions(self.annotation_file(split), V2Record)

    @staticmethod
    def source(video_id: str) -> str:
        """`real` or `synthetic` for the videos of MUSIC-AVQA, `additional` for the new ones."""
        return MusicAVQA.source(video_id) or "additional"
