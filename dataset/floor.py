"""The question-only floor: what the text of questions and candidates is worth without media."""

from __future__ import annotations

from collections import Counter, defaultdict

from dataset.types import Question


def question_only_floor(train: list[Question], test: list[Question]) -> list[bool]:
    """Whether the best guess from text alone is right, per question of `test`."""
    floor = multiple_choice_guesses if train[0].choices else majority_guesses
    return [guess == question.answer for guess, question in zip(floor(train, test), test, strict=True)]


def majority_guesses(train: list[Question], test: list[Question]) -> list[str]:
    """The majority answer in training, per question of `test`.

    Asked of the same text with the same values; where training has none, of the template, then of
    the type, then of all. Ties go to the answer seen first.
    """
    levels = (lambda q: (q.template, q.words), lambda q: q.template, lambda q: q.type, lambda q: None)
    tables = []
    for key in levels:
        counts: dict[object, Counter[str]] = defaultdict(Counter)
        for question in train:
            counts[key(question)][question.answer] += 1
        tables.append((key, {k: c.most_common(1)[0][0] for k, c in counts.items()}))
    return [next(table[key(q)] for key, table in tables if key(q) in table) for q in test]


def multiple_choice_guesses(train: list[Question], test: list[Question]) -> list[str]:
    """Per question of `test` the candidate that was right most often for its text in training.

    Among equals the one with the largest share of times right when offered, then the first.
    """
    right_for_text: dict[tuple[str, ...], Counter[str]] = defaultdict(Counter)
    right, offered = Counter(), Counter()
    for question in train:
        right_for_text[question.words][question.answer] += 1
        right[question.answer] += 1
        offered.update(set(question.texts))

    def worth(words: tuple[str, ...], text: str) -> tuple[int, float]:
        return right_for_text[words][text], right[text] / max(offered[text], 1)

    return [max(q.texts, key=lambda text, q=q: worth(q.words, text)) for q in test]
