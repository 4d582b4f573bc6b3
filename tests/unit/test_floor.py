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


def offered(words: str, answer: str, *choices: str) -> Question:
    return Question(0, 0, "v", "Which", words, tuple(words.split()), answer, tuple(tuple(c.split()) for c in choices))


def test_a_candidate_is_guessed_by_text_and_frequency():
    """First how often it was right for this text, then how often when offered."""
    train = [offered("what sounds", "dog", "dog", "cat"), offered("what sounds", "dog", "cat", "dog"),
             offered("what sounds", "cat", "dog", "cat"), offered("what moves", "big car", "dog", "big car"),
             offered("what moves", "big car", "big car", "bus")]
    asked = [offered("what sounds", "dog", "cat", "dog"),         # right twice against once for this text
             offered("what sounds", "big car", "bus", "big car"), # never for this text: right 2 of 2 against 0 of 1
             offered("who", "dog", "dog", "cat"),                 # new text: right 2 of 4 against 1 of 3
             offered("who", "new", "new", "bus"),                 # both worth nothing: the first
             offered("who", "new", "bus", "new")]
    assert question_only_floor(train, asked) == [True, True, True, True, False]
