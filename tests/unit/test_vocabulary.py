"""Indices by first occurrence in training, and what becomes of unknown words and answers."""

from dataset.types import Question
from dataset.vocabulary import Vocabulary


def question(words: str, answer: str) -> Question:
    return Question(0, 0, "v", "Audio/Counting", words, tuple(words.split()), answer)


def test_order_of_first_occurrence_padding_first():
    vocabulary = Vocabulary.build([question("is there a cello", "yes"), question("is it", "no"), question("a b", "yes")])
    assert vocabulary.words == ["<pad>", "is", "there", "a", "cello", "it", "b"]
    assert vocabulary.answers == ["yes", "no"] and vocabulary.length == 4


def test_short_questions_are_padded_long_ones_cut_unknown_words_are_padding():
    vocabulary = Vocabulary.build([question("is there a cello", "yes")])
    assert vocabulary.encode_words(("a", "oboe")) == [3, 0, 0, 0]
    assert vocabulary.encode_words(("is", "there", "a", "cello", "is")) == [1, 2, 3, 4]
    assert vocabulary.encode_answer("yes") == 0 and vocabulary.encode_answer("maybe") == -1


def test_candidates_share_the_words_and_the_length_and_are_no_answers():
    asked = Question(0, 0, "v", "Which", "is it", ("is", "it"), "a cello", (("a", "cello"), ("is", "a", "b"), ()))
    vocabulary = Vocabulary.build([asked])
    assert vocabulary.words == ["<pad>", "is", "it", "a", "cello", "b"] and vocabulary.length == 3
    assert vocabulary.answers == []
    assert vocabulary.encode_choices(asked.choices) == [[3, 4, 0], [1, 3, 5], [0, 0, 0]]


def test_round_trip():
    vocabulary = Vocabulary.build([question("is there a cello", "yes")])
    assert Vocabulary.from_dict(vocabulary.to_dict()) == vocabulary
