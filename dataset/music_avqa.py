"""MUSIC-AVQA, and any data set in its layout; shapes, segments and vocabularies are read from the files."""

from __future__ import annotations

import re
import sys
from functools import cached_property
from pathlib import Path
from typing import Annotated, Literal

import numpy as np
from pydantic import Field

from dataset.loader import QuestionSet, Store
from dataset.packed import PackedStore
from dataset.presence import COLUMNS, SCENARIOS, Scenario, read_recorded
from dataset.question_features import QuestionFeatures
from dataset.questions import read_questions
from dataset.store import DAY, FeatureStore, Layout, check_same_clip, note_on_segments
from dataset.types import AUDIO, MODALITIES, VISUAL, DataError, DataSpec, Question
from dataset.vocabulary import Vocabulary

CACHE_LIMIT_MB = 512
# Names of the release: real videos are eight digits, synthetic overlays have one of six prefixes.
SOURCES = {"real": re.compile(r"\d{8}"), "synthetic": re.compile(r"(va|sa|vv|eva|esa|evv)\d+")}


class MusicAVQA:
    """ROOT/ANNOTATIONS/avqa-{train,val,test}.json and ROOT/feats/{vggish,res18_14x14}/VIDEO_ID.npy.

    `annotations`: the folder of the corrected release (`json_update`) or of the first (`json`). `train_file` and so on:
    file names inside it. `stride`: seconds between two segments (60 rows at 6 are the T = 10 of AVST). `visual_layout`:
    of a second in a visual file, a `map` of channels x height x width, or `cls_first`, tokens x channels of which token
    0 is the whole frame (CLIP). `question_features`: the .npz of scripts/extract_features.py --questions below ROOT,
    for backbones that read CLIP's text. `features`: one file per video, or the arrays that scripts/pack_features.py
    leaves in `packed_folder`. `skip_missing`: leave out questions whose video has no feature files, instead of
    stopping. `train_missing_ratio`: share of the training videos that lose one modality for good, as if it had never
    been recorded. What feats/presence.json records as lacking (see docs/data.md) is absent in training and test, and so
    is what a shorter feature file lacks.
    """

    def __init__(
        self,
        *,
        root: str,
        annotations: str = "json_update",
        train_file: str = "avqa-train.json",
        val_file: str = "avqa-val.json",
        test_file: str = "avqa-test.json",
        audio_folder: str = "feats/vggish",
        visual_folder: str = "feats/res18_14x14",
        visual_layout: Layout = "map",
        question_features: str | None = None,
        stride: Annotated[int, Field(ge=1, le=DAY)] = 6,
        features: Literal["files", "packed"] = "files",
        packed_folder: str = "feats/packed",
        skip_missing: bool = False,
        train_missing_ratio: Annotated[float, Field(ge=0, le=1)] = 0.0,
    ) -> None:
        self.root = Path(root)
        self.files = {"train": train_file, "val": val_file, "test": test_file}
        self.annotations, self.stride, self.skip_missing = annotations, stride, skip_missing
        self.folders, self.visual_layout = {AUDIO: audio_folder, VISUAL: visual_folder}, visual_layout
        self.question_file = question_features and self.root / question_features
        self.packed_folder = self.root / packed_folder if features == "packed" else None
        self._questions: dict[str, list[Question]] = {}
        self._segments: dict[tuple[str, int], np.ndarray] = {}
        if not self.root.is_dir():
            raise DataError(f"no data set at dataset.root={root}: expected a folder with {annotations}/{train_file}, "
                            f"{audio_folder}/, {visual_folder}/ as the README describes")
        self.recorded = read_recorded(self.root / "feats", train_missing_ratio)

    @cached_property
    def stores(self) -> dict[int, Store]:
        """The two feature stores by modality; their segments must agree."""
        if self.packed_folder:
            audio = PackedStore(self.packed_folder, MODALITIES[AUDIO], self.stride)
            visual = PackedStore(self.packed_folder, MODALITIES[VISUAL], self.stride, self.visual_layout)
        else:
            audio = FeatureStore(self.root / self.folders[AUDIO], self.stride, dimensions=1)
            visual = FeatureStore(self.root / self.folders[VISUAL], self.stride, dimensions=3,
                                  layout=self.visual_layout)
        check_same_clip(audio, visual)
        note = note_on_segments(audio.source_rows, self.stride,
                                "pack_features.py --stride " if self.packed_folder else "dataset.stride=")
        if note:
            print(note, file=sys.stderr)
        return {AUDIO: audio, VISUAL: visual}

    @cached_property
    def question_features(self) -> QuestionFeatures | None:
        return QuestionFeatures(self.question_file) if self.question_file else None

    def annotation_file(self, split: str) -> Path:
        return self.root / self.annotations / self.files[split]

    def read_split(self, split: str) -> list[Question]:
        """The questions of a split as annotated."""
        return read_questions(self.annotation_file(split))

    def questions(self, split: str) -> list[Question]:
        """All questions of `train`, `val` or `test`."""
        if split not in self._questions:
            found = self.read_split(split)
            kept = [q for q in found if not self.skip_missing or all(self.at_hand(q.video_id, m) for m in self.stores)]
            if not kept:
                raise DataError(f"no video of {self.annotation_file(split)} has feature files in {self.root}")
            if len(kept) < len(found):
                print(f"{split}: {len(kept)} of {len(found)} questions kept, the others' videos have no feature files")
            self._questions[split] = kept
        return self._questions[split]

    def at_hand(self, video_id: str, modality: int) -> bool:
        """Whether a video has its feature file, or needs none because the modality was never there."""
        return self.stores[modality].has(video_id) or self.recorded.lacks(video_id, modality)

    def vocabulary(self) -> Vocabulary:
        return Vocabulary.build(self.questions("train"))

    def spec(self, vocabulary: Vocabulary) -> DataSpec:
        """Shapes as the files and the training questions have them."""
        channels, height, width = self.stores[VISUAL].shape
        return DataSpec(
            segments=self.stores[AUDIO].segments, audio_channels=self.stores[AUDIO].shape[0],
            visual_channels=channels, grid=(height, width),
            words=vocabulary.length,
            vocabulary=len(vocabulary.words), answers=len(vocabulary.answers),
            choices=len(self.questions("train")[0].choices),
            frame_token=self.visual_layout == "cls_first",
            text_channels=self.question_features.channels if self.question_features else 0,
        )

    def question_set(self, split: str, vocabulary: Vocabulary, scenario: Scenario = SCENARIOS["complete"], *,
                     negatives: str = "none", seed: int = 0, epoch: int = 0, cache: bool = True) -> QuestionSet:
        """`split` under `scenario`; `seed` and `epoch` draw the negatives; `cache` keeps what fits in memory."""
        questions = self.questions(split)
        self.check_files(split, scenario)
        if self.question_features:
            self.question_features.check(questions)
        read = self.read_cached if cache and self.fits_in_memory(split) else self.read
        return QuestionSet(questions, self.stores[AUDIO], self.stores[VISUAL], vocabulary, scenario, read, self.recorded,
                           train=split == "train", negatives=negatives, seed=seed, epoch=epoch,
                           text=self.question_features)

    def read(self, video_id: str, modality: int) -> np.ndarray:
        """The segments of one video, (T, C) or (T, C, H, W), in the type of the store."""
        return self.stores[modality].read_segments(video_id)

    def read_cached(self, video_id: str, modality: int) -> np.ndarray:
        key = video_id, modality
        if key not in self._segments:
            self._segments[key] = self.read(video_id, modality)
        return self._segments[key]

    def check_files(self, split: str, scenario: Scenario) -> None:
        """That every file `scenario` may read is there: better said at once than after hours of training."""
        videos = sorted({q.video_id for q in self.questions(split)})
        whole = scenario.ratio == 1 and scenario.segments is None
        for modality, store in self.stores.items():
            if whole and modality in COLUMNS[scenario.missing]:
                continue
            lacking = [video for video in videos if not self.at_hand(video, modality)]
            if lacking:
                raise DataError(f"feature file {store.folder / lacking[0]}.npy does not exist, or is not packed "
                                f"({len(lacking)} of {len(videos)} videos of {split} have none there); extract or download "
                                "them, or set dataset.skip_missing=true")

    def fits_in_memory(self, split: str) -> bool:
        """Whether the used segments of a split are small enough to be kept after the first reading."""
        videos = len({q.video_id for q in self.questions(split)})
        values = sum(s.segments * int(np.prod(s.shape)) for s in self.stores.values())
        return videos * values * 4 <= CACHE_LIMIT_MB * 2 ** 20

    def check(self, spec: DataSpec) -> None:
        """That the files at hand have the shapes a checkpoint was trained on; its vocabulary travels with it."""
        audio, visual = self.stores[AUDIO], self.stores[VISUAL]
        here = (audio.segments, audio.shape, visual.shape)
        wanted = (spec.segments, (spec.audio_channels,), (spec.visual_channels, *spec.grid))
        if here != wanted:
            raise DataError(f"the features in {self.root} have segments, audio and visual shapes {here}; the "
                            f"checkpoint was trained on {wanted}. Set dataset.root or dataset.stride to matching data")
        channels = self.question_features.channels if self.question_features else 0
        if spec.text_channels and channels != spec.text_channels:
            raise DataError(f"the checkpoint was trained with question features of {spec.text_channels} channels, those at "
                            f"hand have {channels or 'none'}; set dataset.question_features")

    @staticmethod
    def source(video_id: str) -> str | None:
        """`real` or `synthetic` for the videos of the release, which are reported apart; None for others."""
        return next((name for name, pattern in SOURCES.items() if pattern.fullmatch(video_id)), None)

    def oracle(self, split: str, scenario: Scenario) -> dict[int, bool] | None:
        """Per row, whether the best possible answer is right; unknown for real data."""
        return None
