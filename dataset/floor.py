"""The question-only floor: what the text of a question alone is worth."""

from __future__ import annotations

from collections import Counter, defaultdict

from dataset.types import Question


def question_only_floor(train: list[Question], test: list[Question]) -> list[bool]:
    """Whether the majority training answer is right, per question of `test`.

    Asked of the same text with the same values; where training has none, of the template, then of the type, then of
    all. Ties go to the answer seen first.
    """
    levels = (lambda q: (q.template, q.words), lambda q: q.template, lambda q: q.type, lambda q: None)
    tables = []
    for key in levels:
        counts: dict[object, Counter[str]] = defaultdict(Counter)
        for question in train:
            counts[key(question)][question.answer] += 1
        tables.append((key, {k: c.most_common(1)[0][0] for k, c in counts.items()}))
    return [guess(tables, question) == question.answer for question in test]


def guess(tables, question: Question) -> str:
    return next(table[key(question)] for key, table in tables if key(question) in table)
