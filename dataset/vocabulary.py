"""Word and answer indices, built from the training questions once and saved with the run."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import Any

from dataset.types import Question

PAD = "<pad>"


@dataclass(frozen=True)
class Vocabulary:
    """`words[0]` is the padding; the others in order of first occurrence, as in the official code.

    A word never seen in training gets the padding's index, so that the official 93 words stay 93:
    an untrained vector of its own would be noise.
    """

    words: list[str]
    answers: list[str]       # none where every question brings its own candidates
    length: int              # L, the longest training question or candidate

    @classmethod
    def build(cls, questions: list[Question]) -> Vocabulary:
        texts = [text for q in questions for text in (q.words, *q.choices)]
        words = dict.fromkeys(word for text in texts for word in text)
        answers = dict.fromkeys(q.answer for q in questions if not q.choices)
        return cls([PAD, *words], list(answers), max(map(len, texts)))

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

    def encode_choices(self, choices: tuple[tuple[str, ...], ...]) -> list[list[int]]:
        """M x `length` indices, each candidate encoded like a question."""
        return [self.encode_words(words) for words in choices]

    def encode_answer(self, answer: str) -> int:
        """-1 for an answer that training never gave: it can be counted as wrong, not learnt."""
        return self.answer_index.get(answer, -1)

    def to_dict(self) -> dict[str, Any]:
        return {"words": self.words, "answers": self.answers, "length": self.length}
