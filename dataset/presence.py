"""Which entries of a question are there: whole modalities, a share of the questions, or single segments."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np

from dataset.types import AUDIO, VISUAL

COLUMNS = {"none": [], "audio": [AUDIO], "visual": [VISUAL], "both": [AUDIO, VISUAL]}


@dataclass(frozen=True)
class Scenario:
    """What an evaluation takes away.

    `ratio`: share of the questions that are hit; with `missing="both"` a question that is hit loses both.
    `segments`: share of the segments that a hit question loses, None for all. Who is hit depends on the question and
    `seed` alone: not on the order, the batch or the process. With the same seed a question hit at one ratio is hit at
    every larger one, so curves over ratios compare like with like.
    """

    name: str
    missing: Literal["none", "audio", "visual", "both"]
    ratio: float = 1.0
    segments: float | None = None
    seed: int = 0

    def presence(self, row: int, segments: int) -> np.ndarray:
        """(T, 2) bool, columns AUDIO and VISUAL."""
        present = np.ones((segments, 2), dtype=bool)
        rng = np.random.default_rng([self.seed, row])
        if rng.random() >= self.ratio:
            return present
        lost = segments if self.segments is None else share_of(segments, self.segments)
        present[np.ix_(rng.permutation(segments)[:lost], COLUMNS[self.missing])] = False
        return present


def share_of(segments: int, share: float) -> int:
    """The share of `segments`, halves rounded up; any share above zero is one segment at least."""
    return max(1, int(share * segments + 0.5)) if share > 0 else 0


SCENARIOS = {s.name: s for s in (
    Scenario("complete", "none"),
    Scenario("audio_missing", "audio"),
    Scenario("visual_missing", "visual"),
    Scenario("both_missing", "both"),
)}
