"""Which entries of a question are there: by modality, by share of questions, by segment."""

from __future__ import annotations

import json
import zlib
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, get_args

import numpy as np

from dataset.files import refuse_special
from dataset.types import AUDIO, MODALITIES, VISUAL, DataError

RECORD = "presence.json"      # in the feature root: {video: {"audio": rows, "visual": rows}} of videos that lack some
Run = Literal["second", "half", "all_but_one"]         # how many segments are lost in a row
COLUMNS = {"none": [], "audio": [AUDIO], "visual": [VISUAL], "both": [AUDIO, VISUAL]}


@dataclass(frozen=True)
class Scenario:
    """What an evaluation takes away.

    `ratio`: share of the questions that are hit; with `missing="both"` a question that is hit loses
    both. `segments`: share of the segments that a hit question loses, anywhere, None for all.
    `run`: or so many in a row, `second` is one segment; the place is drawn. Who is hit and where
    depends on the question and `seed` alone: not on the order, the batch or the process. With the
    same seed a question hit at one ratio is hit at every larger one, so curves over ratios compare
    like with like.
    """

    name: str
    missing: Literal["none", "audio", "visual", "both"]
    ratio: float = 1.0
    segments: float | None = None
    run: Run | None = None
    seed: int = 0

    @property
    def whole(self) -> bool:
        """Whether every question loses all segments of what is missing."""
        return self.ratio == 1 and self.segments is None and self.run is None

    def presence(self, row: int, segments: int) -> np.ndarray:
        """(T, 2) bool, columns AUDIO and VISUAL."""
        present = np.ones((segments, 2), dtype=bool)
        if self.missing == "none":
            return present
        rng = np.random.default_rng([self.seed, row])
        if rng.random() >= self.ratio:
            return present
        if self.run:
            lost = {"second": 1, "half": (segments + 1) // 2, "all_but_one": segments - 1}[self.run]
            places = np.arange(lost) + rng.integers(segments - lost + 1)
        else:
            share = 1.0 if self.segments is None else self.segments
            lost = max(1, int(share * segments + 0.5)) if share > 0 else 0    # halves up, and one segment at least
            places = rng.permutation(segments)[:lost]
        present[np.ix_(places, COLUMNS[self.missing])] = False
        return present


SCENARIOS = {s.name: s for s in (
    Scenario("complete", "none"),
    Scenario("audio_missing", "audio"),
    Scenario("visual_missing", "visual"),
    Scenario("both_missing", "both"),
    *(Scenario(f"{modality}_{run}", modality, run=run) for modality in MODALITIES for run in get_args(Run)),
)}


@dataclass(frozen=True)
class Recorded:
    """What the data themselves lack, by video; everything else is there.

    `rows`: of a video its present rows of audio and of visual, counted from the start (feature
    extraction writes them to presence.json). `train_missing_ratio`: share of the videos that are
    treated, in training, as if one modality had never been recorded, of these `train_missing_audio`
    the sound and the others the picture; which ones depends on the name of the video alone.
    """

    rows: dict[str, tuple[int, int]]
    train_missing_ratio: float = 0.0
    train_missing_audio: float = 0.5

    def presence(self, video_id: str, segments: int, stride: int, train: bool) -> np.ndarray:
        """(T, 2) bool."""
        present = np.ones((segments, 2), dtype=bool)
        if video_id in self.rows:
            present = np.arange(segments)[:, None] * stride < np.array(self.rows[video_id])
        if train and self.train_missing_ratio:
            draw = zlib.crc32(video_id.encode()) / 2 ** 32
            if draw < self.train_missing_ratio:
                present[:, AUDIO if draw < self.train_missing_ratio * self.train_missing_audio else VISUAL] = False
        return present

    def lacks(self, video_id: str, modality: int) -> bool:
        """Whether the video has nothing at all of the modality, and so no feature file."""
        return video_id in self.rows and not self.rows[video_id][modality]


def read_recorded(root: Path, train_missing_ratio: float, train_missing_audio: float = 0.5) -> Recorded:
    """`Recorded` of the feature folder `root`; without a presence.json every video is complete."""
    path = root / RECORD
    refuse_special(path)
    if not path.is_file():
        return Recorded({}, train_missing_ratio, train_missing_audio)
    try:
        rows = {video: tuple(counts[m] for m in MODALITIES) for video, counts in json.loads(path.read_text()).items()}
        if not all(isinstance(n, int) and n >= 0 for counts in rows.values() for n in counts):
            raise ValueError("a count is not a whole number of rows")
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise DataError(f'{path} must hold {{"VIDEO_ID": {{"audio": ROWS, "visual": ROWS}}, ...}} ({error}); extract '
                        "again, or remove the file if every video is complete") from error
    return Recorded(rows, train_missing_ratio, train_missing_audio)
