"""The question-only floor by hand."""

from dataset.floor import question_only_floor
from dataset.types import Question


def q(template: str, values: str, answer: str, type_: str = "Audio/Counting") -> Question:
    return Question(0, 0, "v", type_, template, (template, values), answer)


def test_exact_text_then_template_then_type_then_all():
    train = [q("a", "x", "yes"), q("a", "x", "no"), q("a", "x", "no"), q("a", "y", "yes"), q("a", "z", "yes"),
             q("b", "x", "two"), q("c", "x", "left", "Visual/Location"), q("c", "y", "left", "Visual/Location")]
    asked = [("a", "x", "no"), ("a", "new", "yes"), ("new", "x", "yes"), ("new", "x", "no")]
    assert question_only_floor(train, [q(*a) for a in asked]) == [True, True, True, False]
    assert question_only_floor(train, [q("new", "x", "left", "Visual/Location")]) == [True]
    assert question_only_floor(train, [q("new", "x", "yes", "Other/Type")]) == [True]


def test_ties_go_to_the_answer_seen_first():
    assert question_only_floor([q("a", "x", "no"), q("a", "x", "yes")], [q("a", "x", "no")]) == [True]
