"""What the tab of the scenes shows: a scene as it is left, and the answers to a question on it."""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache

import numpy as np

from dataset.synthetic.templates import ANSWERS, ASKABLE
from dataset.synthetic.world import COLUMNS, ROWS, SEGMENTS
from dataset.types import AUDIO, VISUAL
from engine.errors import UsageError
from scripts.page.answers import STATES, answer, distances, presence_of, switched
from scripts.page.benchmark import Benchmark
from scripts.page.columns import Column, Said, draw
from scripts.page.marks import note, page
from scripts.page.runs import Runs
from scripts.page.scene import draw_stage, draw_time, in_words
from scripts.page.sound import player, render
from scripts.page.trouble import TROUBLE, sentence

NO_RUN = ("No trained run of the embedded benchmark was given: bash train.sh makes two in some six minutes, then load "
          "this page again. The oracle and the floor answer without one.")
NO_QUESTION = "Ask something: choose a template, or type a question."
NO_TEMPLATE = "The oracle and the floor know the 33 templates and their rephrasings; this question is none of them."
UNFIT = "This scene does not fit the question: what it takes for granted is not there, so no answer is right."


class SceneDesk:
    """Answers of `runs` on the scenes of `benchmark`; every method gives HTML or plain values."""

    def __init__(self, benchmark: Benchmark, runs: Runs) -> None:
        self.benchmark, self.runs = benchmark, runs
        self.ask_cached = lru_cache(512)(self.ask)

    def questions(self, number: int) -> list[str]:
        """The test questions on a scene."""
        asked = self.benchmark.questions.get(self.benchmark.video(self.checked(number)), [])
        return list(dict.fromkeys(" ".join(question.words) + "?" for question in asked))

    def rich_scene(self) -> int:
        """The first scene with three instruments in view, of which some sound; else the first."""
        scenes = self.benchmark.scenes
        return int(((scenes.seen.sum(axis=1) == 3) & (scenes.heard.sum(axis=1) > 1)).argmax())

    def checked(self, number: float | None) -> int:
        """UsageError unless it is the number of a scene."""
        if number is None or number != int(number) or not 0 <= number < len(self.benchmark):
            raise UsageError(f"give the number of a test scene, 0 to {len(self.benchmark) - 1}")
        return int(number)

    def picture(self, number: float | None, sound: Sequence[str], picture: Sequence[str]) -> str:
        """The scene, drawn and heard, with what the switches leave."""
        try:
            scene, left = self.benchmark.scene(self.checked(number)), switched(sound, picture, SEGMENTS)
        except TROUBLE as error:
            return page(note(sentence(error)))
        heard = player(render(scene, left[:, AUDIO]))
        return page(f'<div class="scene"><div>{draw_stage(scene, left[:, VISUAL])}{heard}</div>'
                    f'<div>{draw_time(scene, left)}</div></div><p class="small">{in_words(scene)}</p>')

    def result(self, number: float | None, sound: Sequence[str], picture: Sequence[str], question: str | None,
               labels: Sequence[str | None]) -> str:
        """All columns; one sentence where nothing can be answered."""
        try:
            if not (question or "").strip():
                raise UsageError(NO_QUESTION)
            return self.drawn(self.checked(number), switched(sound, picture, SEGMENTS), question, labels)
        except TROUBLE as error:
            return page(note(sentence(error)))

    def drawn(self, number: int, switches: np.ndarray, question: str, labels: Sequence[str | None]) -> str:
        asked, remarks = self.benchmark.find(question), []
        chosen = list(dict.fromkeys(label for label in labels if label))
        columns = [self.column(number, state, switches, question, chosen, remarks) for state in STATES]
        remarks += [] if chosen else [NO_RUN]
        if asked is None:
            return draw(columns, NO_TEMPLATE, None, (ROWS, len(COLUMNS)), [*remarks, NO_TEMPLATE])
        template = ASKABLE[asked[0]]
        weight, right = template.ask(self.benchmark.scene(number), *template.choices[asked[1]])
        remarks += [] if weight[0] else [UNFIT]
        floor = f"{self.benchmark.floor(question)}: the majority answer of training to this question"
        return draw(columns, floor, ANSWERS[right[0]] if weight[0] else None, (ROWS, len(COLUMNS)), remarks)

    def column(self, number: int, state: str, switches: np.ndarray, question: str, labels: Sequence[str],
               remarks: list[str]) -> Column:
        """One state; `remarks` takes what is to be said on the way."""
        left, runs, asked = presence_of(state, switches), [], self.benchmark.find(question)
        for label in labels:
            try:
                runs.append(self.ask_cached(label, self.runs.changed(label), number, question, left.tobytes()))
                remarks += runs[-1].answer.notes
            except TROUBLE as error:
                remarks.append(f"{label}: {sentence(error)}")
        oracle = None if asked is None else self.benchmark.posterior(number, asked, left)
        return Column(state, left, runs, oracle)

    def ask(self, label: str, _changed: int, number: int, question: str, presence: bytes) -> Said:
        """`_changed`: when the run was written, so that no answer of an older one is kept."""
        left = np.frombuffer(presence, dtype=bool).reshape(-1, 2)
        answerer, streams = self.runs.open(label), self.benchmark.streams(number)
        self.benchmark.data.check(answerer.spec)
        given, look = answer(answerer, streams, question, left)
        return Said(label, given, look, distances(answerer, streams, question, left))
