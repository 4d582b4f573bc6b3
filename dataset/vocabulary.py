"""Word and answer indices, built from the training questions once and saved with the run."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import Any

from dataset.types import Question

PAD = "<pad>"


@dataclass(frozen=True)
class Vocabulary:
    """`words[0]` is the padding; order is that of first occurrence in training, as in the official code.

    A word never seen in training gets the padding's index, so that the official 93 words stay 93: an untrained
    vector of its own would be noise.
    """

    words: list[str]
    answers: list[str]
    length: int              # L, the longest training question

    @classmethod
    def build(cls, questions: list[Question]) -> Vocabulary:
        words = dict.fromkeys(word for q in questions for word in q.words)
        answers = dict.fromkeys(q.answer for q in questions)
        return cls([PAD, *words], list(answers), max(len(q.words) for q in questions))

    @cached_property
    def word_index(self) -> dict[str, int]:
        return {word: i for i, word in enumerate(self.words)}

    @cached_property
    def answer_index(self) -> dict[str, int]:
        return {answer: i for i, answer in enumerate(self.answers)}

    def encode_words(self, words: tuple[str, ...]) -> list[int]:
        """`length` indices: words beyond it are cut, shorter questions padded."""
        indices = [self.word_index.get(word, 0) for word in words[:self.length]]
        return indices + [0] * (self.length - len(indices))

    def encode_answer(self, answer: str) -> int:
        """-1 for an answer that training never gave: it can be counted as wrong, not learnt."""
        return self.answer_index.get(answer, -1)

    def to_dict(self) -> dict[str, Any]:
        return {"words": self.words, "answers": self.answers, "length": self.length}

    @classmethod
    def from_dict(cls, value: dict[str, Any]) -> Vocabulary:
        return cls(list(value["words"]), list(value["answers"]), int(value["length"]))
