"""The embedded benchmark behind the page: test scenes, what the oracle and the floor say."""

from __future__ import annotations

import json
from dataclasses import dataclass
from functools import lru_cache
from itertools import chain
from pathlib import Path

import numpy as np
import torch

from dataset.files import refuse_special
from dataset.floor import majority_guesses
from dataset.questions import fill
from dataset.synthetic.data import Synthetic, make_split
from dataset.synthetic.oracle import choice_weights
from dataset.synthetic.partial import given_observed
from dataset.synthetic.rephrasings import REPHRASINGS
from dataset.synthetic.templates import ANSWERS, ASKABLE
from dataset.synthetic.world import Scenes
from dataset.types import AUDIO, VISUAL, DataError, Question
from engine.answerer import END, Streams

DRAWS = 8000                 # of a posterior


@dataclass(frozen=True)
class Posterior:
    """`best`: answers with their probabilities, the most probable first; none where nothing that
    fits what is left leads to the question. `error`: of the first, the standard error of the draws.
    """

    best: list[tuple[str, float]]
    error: float = 0.0


class Benchmark:
    """The benchmark at `root`, made there in the default settings where it is not."""

    def __init__(self, root: Path) -> None:
        self.data = Synthetic(root=str(root), **settings_of(root))
        self.scenes, _ = make_split("test", self.data.settings)
        self.questions: dict[str, list[Question]] = {}
        for question in self.data.questions("test"):
            self.questions.setdefault(question.video_id, []).append(question)
        self.known = known_texts()
        self.draws = lru_cache(32)(self.draw)
        self.floor = lru_cache(256)(self.guess)

    def __len__(self) -> int:
        return len(self.scenes)

    def scene(self, number: int) -> Scenes:
        return self.scenes[[number]]

    def video(self, number: int) -> str:
        return f"test{number:06d}"

    def streams(self, number: int) -> Streams:
        """All that is heard and seen of a scene, as the models get it."""
        audio, visual = (torch.from_numpy(self.data.read(self.video(number), m)).float() for m in (AUDIO, VISUAL))
        return Streams(audio, visual, torch.ones(len(audio), 2, dtype=torch.bool))

    def find(self, text: str) -> tuple[int, int] | None:
        """The template and the choice of values (positions) of a question, or None."""
        return self.known.get(tuple(text.strip().rstrip(END).split()))

    def posterior(self, number: int, asked: tuple[int, int], presence: np.ndarray) -> Posterior:
        """The Bayes oracle's answers from what `presence` (T, 2) bool leaves of the scene."""
        template, choice = asked
        weights, answers = choice_weights(ASKABLE[template], self.draws(number, presence.tobytes()))
        total = weights.sum(axis=0)
        chances = np.divide(weights[choice], total, out=np.zeros_like(total), where=total > 0)
        if not chances.any():
            return Posterior([])
        shares = np.bincount(answers[choice], chances, len(ANSWERS)) / chances.sum()
        order = np.argsort(-shares, kind="stable")
        effective = chances.sum() ** 2 / (chances ** 2).sum()
        best = float(shares[order[0]])
        return Posterior([(ANSWERS[i], float(shares[i])) for i in order if shares[i] > 0],
                         float(np.sqrt(max(best * (1 - best), 0) / effective)))

    def draw(self, number: int, presence: bytes) -> Scenes:
        there = np.frombuffer(presence, dtype=bool).reshape(-1, 2)
        return given_observed(self.scene(number), there, DRAWS, np.random.default_rng(number))

    def guess(self, text: str) -> str | None:
        """The majority answer of training to a question; None where it is no template's."""
        if (asked := self.find(text)) is None:
            return None
        template = ASKABLE[asked[0]]
        words = fill(template.text, list(template.choices[asked[1]]))
        question = Question(0, 0, "", template.type, template.text, words, "")
        return majority_guesses(self.data.questions("train"), [question])[0]


def settings_of(root: Path) -> dict:
    """The settings of the benchmark that is at `root`, or none."""
    manifest = root / "manifest.json"
    refuse_special(manifest)
    if not manifest.is_file():
        return {}
    try:
        settings = json.loads(manifest.read_bytes())
        return {name: settings[name] for name in Synthetic.__dataclass_fields__ if name in settings and name != "root"}
    except (ValueError, TypeError, RecursionError) as error:
        raise DataError(f"{manifest} is damaged; delete {root}, it is generated again") from error


def known_texts() -> dict[tuple[str, ...], tuple[int, int]]:
    """The words of every question that the world can be asked, rephrased or not."""
    known: dict[tuple[str, ...], tuple[int, int]] = {}
    for number, template in enumerate(ASKABLE):
        texts = chain([template.text], REPHRASINGS.get(template.text.rstrip()[:-1] + "?", ()))
        for text in texts:
            for choice, values in enumerate(template.choices):
                known.setdefault(fill(text, list(values)), (number, choice))
    return known
