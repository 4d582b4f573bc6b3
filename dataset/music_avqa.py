"""MUSIC-AVQA, and any data set in its layout; shapes and vocabularies are read from the files."""

# Annotations stay objects here: the checks of options read them for the classes below, too.

import re
from dataclasses import dataclass

from dataset.base import FolderDataSet
from dataset.questions import MusicAVQARecord, read_questions
from dataset.store import Stride
from dataset.types import Question

# Names of the release: real videos are eight digits, synthetic overlays have one of six prefixes.
SOURCES = {"real": re.compile(r"\d{8}"), "synthetic": re.compile(r"(va|sa|vv|eva|esa|evv)\d+")}


@dataclass(kw_only=True, eq=False)
class MusicAVQA(FolderDataSet):
    """ROOT/ANNOTATIONS/avqa-{train,val,test}.json and ROOT/feats/{vggish,res18_14x14}/VIDEO_ID.npy.

    `annotations`: the folder of the corrected release (`json_update`) or of the first (`json`).
    `stride`: 60 rows at 6 are the T = 10 of AVST. The other options are those of FolderDataSet.
    """

    annotations: str = "json_update"
    train_file: str = "avqa-train.json"
    val_file: str = "avqa-val.json"
    test_file: str = "avqa-test.json"
    stride: Stride = 6

    def read_split(self, split: str) -> list[Question]:
        return read_questions(self.annotation_file(split), MusicAVQARecord)

    @staticmethod
    def source(video_id: str) -> str | None:
        """`real` or `synthetic` for the videos of the release; None for others."""
        return next((name for name, pattern in SOURCES.items() if pattern.fullmatch(video_id)), None)
