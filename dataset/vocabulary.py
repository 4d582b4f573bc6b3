"""Word and answer indices, built from the training questions once and saved with the run."""

from __future__ import annotations

from collections import Counter
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

    def note(self, questions: list[Question], reads_text: bool) -> list[str]:
        """A line on what it does not know of `questions`, none where it knows all.

        `reads_text`: whether the model may read question features, which have no such limits.
        """
        words = [[word for text in (q.words, *q.choices) for word in text] for q in questions]
        unseen = [word for of_one in words for word in of_one if word not in self.word_index]
        hit = sum(any(word not in self.word_index for word in of_one) for of_one in words)
        long = sum(len(q.words) > self.length for q in questions)
        if not hit and not long:
            return []
        common = ", ".join(f"{word!r}" for word, _ in Counter(unseen).most_common(3))
        line = f"note: {hit} of {len(questions)} questions hold words that training never saw"
        line += f" ({len(set(unseen))} words, most often {common})" if unseen else ""
        line += f"; {long} are longer than {self.length} words and are cut" if long else ""
        if reads_text:
            return [f"{line}. CLIP's text encoder reads them; a backbone with a vocabulary of its own reads padding"]
        return [f"{line}. Such words are read as padding; a backbone with a vocabulary of its own cannot be judged on "
                "them"]

    def to_dict(self) -> dict[str, Any]:
        return {"words": self.words, "answers": self.answers, "length": self.length}
