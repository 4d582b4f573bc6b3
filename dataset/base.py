"""What every data set offers: questions, feature stores, vocabulary, shapes and sets of questions.

A data set has to give `annotation_file`, `read_split` and `stores`; below FolderDataSet only
`read_split` is left. Options are fields of the class, each checked by its annotation.
"""
# Annotations stay objects here: the checks of options read them from other modules, too.

import sys
from abc import ABC, abstractmethod
from dataclasses import dataclass
from functools import cache, cached_property
from pathlib import Path
from typing import Annotated, Literal

import numpy as np
from pydantic import Field

from dataset.extracted import is_dry_run, row_seconds
from dataset.loader import QuestionSet
from dataset.packed import PackedStore
from dataset.presence import COLUMNS, SCENARIOS, Scenario, read_recorded
from dataset.question_features import QuestionFeatures
from dataset.store import FeatureStore, Layout, Stride, check_same_clip, note_on_segments
from dataset.types import AUDIO, MODALITIES, VISUAL, DataError, DataSpec, Question
from dataset.vocabulary import Vocabulary

CACHE_LIMIT_MB = 512


@dataclass(kw_only=True, eq=False)
class DataSet(ABC):
    """Questions on videos below the folder `root`; DataError where something is missing or damaged.

    `train_questions`: share of the training questions that is asked, a smaller one within every
    larger one; vocabularies and floor are those of all. `train_missing_ratio`: share of the
    training videos that lose one modality for good, as if it had never been recorded; of these the
    share `train_missing_audio` loses the sound. What feats/presence.json records as lacking
    (docs/data.md) is absent in training and test.
    """

    root: str
    train_questions: Annotated[float, Field(gt=0, le=1)] = 1.0
    train_missing_ratio: Annotated[float, Field(ge=0, le=1)] = 0.0
    train_missing_audio: Annotated[float, Field(ge=0, le=1)] = 0.5

    text = None                          # the QuestionFeatures of a data set that has them
    skip_missing = False                 # whether questions on videos without feature files are left out
    frame_token = False                  # whether token 0 of the grid is the frame as a whole
    dry_run = False                      # whether the features come from random extractor weights
    row_seconds = 1                      # between two rows of the features

    def __post_init__(self) -> None:
        self.root = Path(self.root)
        self.recorded = read_recorded(self.root / "feats", self.train_missing_ratio, self.train_missing_audio)
        self.known_questions: dict[str, list[Question]] = {}
        self.read_cached = cache(self.read)

    @abstractmethod
    def annotation_file(self, split: str) -> Path:
        """The file that holds the questions of a split."""

    @abstractmethod
    def read_split(self, split: str) -> list[Question]:
        """The questions of `train`, `val` or `test` as annotated."""

    @property
    @abstractmethod
    def stores(self) -> dict[int, FeatureStore | PackedStore]:
        """The feature stores by modality, with equally many segments."""

    def questions(self, split: str) -> list[Question]:
        """The questions of `train`, `val` or `test` that are used; read once."""
        if split not in self.known_questions:
            annotated = kept = self.read_split(split)
            if self.skip_missing:
                kept = [q for q in annotated if all(self.at_hand(q.video_of(m), m) for m in self.stores)]
            if not kept:
                raise DataError(f"no video of {self.annotation_file(split)} has feature files in {self.root}")
            if len(kept) < len(annotated):
                print(f"{split}: {len(kept)} of {len(annotated)} questions kept, the others' videos have no feature "
                      "files")
            self.known_questions[split] = kept
        return self.known_questions[split]

    def asked(self, split: str) -> list[Question]:
        """All `questions`, of `train` the share `train_questions`: the same ones for every seed."""
        questions = self.questions(split)
        if split != "train" or self.train_questions == 1:
            return questions
        order = np.random.default_rng(0).permutation(len(questions))
        return [questions[i] for i in sorted(order[:max(1, round(self.train_questions * len(questions)))])]

    def vocabulary(self) -> Vocabulary:
        return Vocabulary.build(self.questions("train"))

    def spec(self, vocabulary: Vocabulary) -> DataSpec:
        """Shapes as the files and the training questions have them."""
        audio, visual = self.stores[AUDIO], self.stores[VISUAL]
        return DataSpec(
            segments=audio.segments, audio_channels=audio.shape[0], visual_channels=visual.shape[0],
            grid=visual.shape[1:], words=vocabulary.length, vocabulary=len(vocabulary.words),
            answers=len(vocabulary.answers), choices=len(self.questions("train")[0].choices),
            frame_token=self.frame_token, text_channels=self.text.channels if self.text else 0,
        )

    def question_set(self, split: str, vocabulary: Vocabulary, scenario: Scenario = SCENARIOS["complete"], *,
                     negatives: str = "none", seed: int = 0, epoch: int = 0, cache: bool = True) -> QuestionSet:
        """`split` under `scenario`; `seed`, `epoch` draw negatives; `cache` keeps small splits."""
        self.check_files(split, scenario)
        if self.text:
            self.text.check(self.questions(split))
        read = self.read_cached if cache and self.fits_in_memory(split) else self.read
        return QuestionSet(self, split, vocabulary, scenario, read, negatives=negatives, seed=seed, epoch=epoch)

    def read(self, video_id: str, modality: int) -> np.ndarray:
        """The segments of one video, (T, C) or (T, C, H, W), in the type of the store."""
        return self.stores[modality].read_segments(video_id)

    def at_hand(self, video_id: str, modality: int) -> bool:
        """Whether a video has its feature file, or needs none because it lacks the modality."""
        return self.stores[modality].has(video_id) or self.recorded.lacks(video_id, modality)

    def check_files(self, split: str, scenario: Scenario) -> None:
        """Fail on a missing file that `scenario` may read now, not after hours of training."""
        for modality, store in self.stores.items():
            if scenario.whole and modality in COLUMNS[scenario.missing]:
                continue
            videos = sorted({q.video_of(modality) for q in self.questions(split)})
            lacking = [video for video in videos if not self.at_hand(video, modality)]
            if lacking:
                raise DataError(f"feature file {store.folder / lacking[0]}.npy does not exist, or is not packed "
                                f"({len(lacking)} of {len(videos)} videos of {split} have none there); extract or "
                                "download them, or set dataset.skip_missing=true")

    def fits_in_memory(self, split: str) -> bool:
        """Whether the used segments of a split are few enough to keep them once read."""
        videos = len({q.video_id for q in self.questions(split)})
        values = sum(s.segments * int(np.prod(s.shape)) for s in self.stores.values())
        return videos * values * 4 <= CACHE_LIMIT_MB * 2 ** 20

    def check(self, spec: DataSpec) -> None:
        """Fail when the files have other shapes than a checkpoint was trained on."""
        audio, visual = self.stores[AUDIO], self.stores[VISUAL]
        here = (audio.segments, audio.shape, visual.shape)
        wanted = (spec.segments, (spec.audio_channels,), (spec.visual_channels, *spec.grid))
        if here != wanted:
            raise DataError(f"the features in {self.root} have segments, audio and visual shapes {here}; the "
                            f"checkpoint was trained on {wanted}. Set dataset.root or dataset.stride to matching data")
        channels = self.text.channels if self.text else 0
        if spec.text_channels and channels != spec.text_channels:
            raise DataError(f"the checkpoint was trained with question features of {spec.text_channels} channels, "
                            f"those at hand have {channels or 'none'}; set dataset.question_features")

    @staticmethod
    def source(video_id: str) -> str | None:
        """The part of the data set that a video belongs to where parts are reported apart."""
        return None

    def oracle(self, split: str, scenario: Scenario) -> dict[int, bool] | None:
        """Per row, whether the best possible answer is right; None where it is not known."""
        return None


@dataclass(kw_only=True, eq=False)
class FolderDataSet(DataSet):
    """A data set in folders: ROOT/ANNOTATIONS/FILE, ROOT/AUDIO_FOLDER/VIDEO_ID.npy, pictures alike.

    `label`: what names its runs in place of the data set's name. `annotations`: the folder of
    `train_file` and so on. `stride`: seconds between two segments. `visual_layout`: of a second in
    a visual file, a `map` of channels x height x width, or `cls_first`, tokens x channels of which
    token 0 is the whole frame (CLIP). `question_features`: the .npz of scripts/extract_features.py
    --questions below ROOT, for backbones that read CLIP's text. `features`: one file per video, or
    the arrays that scripts/pack_features.py leaves in `packed_folder`. `skip_missing`: leave out
    questions whose video has no feature files, instead of stopping. What a shorter feature file
    lacks is absent.
    """

    label: Annotated[str, Field(pattern=r"^\w[\w.-]{0,60}$")] | None = None
    annotations: str
    train_file: str
    test_file: str
    audio_folder: str = "feats/vggish"
    visual_folder: str = "feats/res18_14x14"
    visual_layout: Layout = "map"
    question_features: str | None = None
    stride: Stride
    features: Literal["files", "packed"] = "files"
    packed_folder: str = "feats/packed"
    skip_missing: bool = False

    def __post_init__(self) -> None:
        super().__post_init__()
        if not self.root.is_dir():
            raise DataError(f"no data set at dataset.root={self.root}: expected a folder with {self.annotations}/"
                            f"{self.train_file}, {self.audio_folder}/, {self.visual_folder}/ as docs/data.md describes")

    def annotation_file(self, split: str) -> Path:
        return self.root / self.annotations / getattr(self, f"{split}_file")

    @property
    def frame_token(self) -> bool:
        return self.visual_layout == "cls_first"

    @cached_property
    def dry_run(self) -> bool:
        return is_dry_run(self.root / "feats")

    @cached_property
    def row_seconds(self) -> int:
        return row_seconds(self.root / "feats")

    @cached_property
    def text(self) -> QuestionFeatures | None:
        return QuestionFeatures(self.root / self.question_features) if self.question_features else None

    @cached_property
    def stores(self) -> dict[int, FeatureStore | PackedStore]:
        packed = self.root / self.packed_folder
        if self.features == "packed":
            audio = PackedStore(packed, MODALITIES[AUDIO], self.stride)
            visual = PackedStore(packed, MODALITIES[VISUAL], self.stride, self.visual_layout)
        else:
            audio = FeatureStore(self.root / self.audio_folder, self.stride, dimensions=1)
            visual = FeatureStore(self.root / self.visual_folder, self.stride, dimensions=3, layout=self.visual_layout)
        check_same_clip(audio, visual)
        option = "pack_features.py --stride " if self.features == "packed" else "dataset.stride="
        note = note_on_segments(audio.source_rows, self.stride, option)
        if note:
            print(note, file=sys.stderr)
        return {AUDIO: audio, VISUAL: visual}
