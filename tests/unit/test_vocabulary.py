"""Indices by first occurrence in training, and what becomes of unknown words and answers."""

from dataset.types import Question
from dataset.vocabulary import Vocabulary


def question(words: str, answer: str) -> Question:
    return Question(0, 0, "v", "Audio/Counting", words, tuple(words.split()), answer)


def test_order_of_first_occurrence_padding_first():
    asked = [question("is there a cello", "yes"), question("is it", "no"), question("a b", "yes")]
    vocabulary = Vocabulary.build(asked)
    assert vocabulary.words == ["<pad>", "is", "there", "a", "cello", "it", "b"]
    assert vocabulary.answers == ["yes", "no"] and vocabulary.length == 4


def test_questions_are_padded_or_cut():
    """Unknown words are padding, unknown answers -1."""
    vocabulary = Vocabulary.build([question("is there a cello", "yes")])
    assert vocabulary.encode_words(("a", "oboe")) == [3, 0, 0, 0]
    assert vocabulary.encode_words(("is", "there", "a", "cello", "is")) == [1, 2, 3, 4]
    assert vocabulary.encode_answer("yes") == 0 and vocabulary.encode_answer("maybe") == -1


def test_candidates_share_words_and_length():
    """They are no answers of the vocabulary."""
    asked = Question(0, 0, "v", "Which", "is it", ("is", "it"), "a cello", (("a", "cello"), ("is", "a", "b"), ()))
    vocabulary = Vocabulary.build([asked])
    assert vocabulary.words == ["<pad>", "is", "it", "a", "cello", "b"] and vocabulary.length == 3
    assert vocabulary.answers == []
    assert vocabulary.encode_choices(asked.choices) == [[3, 4, 0], [1, 3, 5], [0, 0, 0]]
