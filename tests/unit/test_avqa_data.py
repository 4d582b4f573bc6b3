"""AVQA: records to questions, the videos held out, and what becomes of damaged records."""

import json
from pathlib import Path

import pytest
from commands import write_avqa
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from dataset import SCENARIOS, make_loader
from dataset.avqa import AVQA, AVQARecord, is_held_out
from dataset.questions import read_questions
from dataset.types import AVQA_TYPES, DataError

RECORD = {"id": 183, "video_name": "-HG3Omg_89c_000030", "video_id": 341,
          "question_text": "What happened in the Video?",
          "multi_choice": ["Motorboat", "Yacht consignment", "Sailboat set sail", "Consignment car"], "answer": 1,
          "question_relation": "View", "question_type": "Happening"}


def read(folder: Path, *changes: dict) -> list:
    path = folder / "train_qa.json"
    path.write_text(json.dumps([{**RECORD, **change} for change in changes]), encoding="utf-8")
    return read_questions(path, AVQARecord)


@pytest.fixture(scope="module")
def data(tmp_path_factory) -> AVQA:
    return AVQA(root=str(write_avqa(tmp_path_factory.mktemp("avqa") / "data")), holdout=0.3)


def test_a_record_becomes_a_question(tmp_path):
    question, = read(tmp_path, {})
    assert question.words == ("what", "happened", "in", "the", "video") and question.type == "Happening"
    assert question.choices == (("motorboat",), ("yacht", "consignment"), ("sailboat", "set", "sail"),
                                ("consignment", "car"))
    assert question.answer == "yacht consignment" == question.texts[1]
    assert (question.video_id, question.question_id, question.row) == ("-HG3Omg_89c_000030", 183, 0)


def test_candidates_that_are_null_or_numbers_are_text(tmp_path):
    question, = read(tmp_path, {"multi_choice": [None, 3, 2.5, "3 Dogs"], "answer": 0})
    assert question.texts == ("null", "3", "2.5", "3 dogs") and question.answer == "null"


@pytest.mark.parametrize("text,words", [
    ("Where is it ?", "where is it"), ("Where is it\uff1f ", "where is it"), ("Where is it", "where is it"),
])
def test_the_final_punctuation_is_cut_and_no_letter(tmp_path, text, words):
    question, = read(tmp_path, {"question_text": text})
    assert question.words == tuple(words.split()) and question.template == text


@pytest.mark.parametrize("change,field", [
    ({"answer": 4}, "answer"), ({"answer": -1}, "answer"), ({"answer": "1"}, "answer"), ({"answer": True}, "answer"),
    ({"multi_choice": ["a", "b", "c"]}, "multi_choice"), ({"multi_choice": "abcd"}, "multi_choice"),
    ({"multi_choice": ["a", "b", "c", ["d"]]}, "multi_choice.3"), ({"multi_choice": [True, 1, 2, 3]}, "multi_choice.0"),
    ({"question_type": "Who"}, "question_type"), ({"question_type": ["Why"]}, "question_type"),
    ({"video_name": "../etc"}, "video_name"), ({"video_name": None}, "video_name"), ({"id": "7"}, "id"),
    ({"question_text": " ? "}, "question_text"), ({"question_text": None}, "question_text"),
])
def test_a_bad_record_names_file_record_and_field(tmp_path, change, field):
    number = change.get("id", 183)
    with pytest.raises(DataError, match=rf"train_qa.json, record 1 \(id {number!r}\), field '{field}'"):
        read(tmp_path, {}, change)


ANYTHING = st.recursive(st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=9),
                        lambda inner: st.lists(inner, max_size=5)
                        | st.dictionaries(st.text(max_size=3), inner, max_size=2))


@settings(deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(st.dictionaries(st.sampled_from(sorted(RECORD)), ANYTHING), st.sets(st.sampled_from(sorted(RECORD))))
def test_any_damage_gives_a_question_or_one_clear_error(tmp_path_factory, changes, lost):
    path = tmp_path_factory.mktemp("a") / "train_qa.json"
    path.write_text(json.dumps([{k: v for k, v in {**RECORD, **changes}.items() if k not in lost}]))
    try:
        question, = read_questions(path, AVQARecord)
    except DataError as error:
        assert "record 0" in str(error)
    else:
        assert question.words and question.answer in question.texts and question.type in AVQA_TYPES


def test_held_out_videos_are_no_training_videos(data):
    """The videos held out are others than those of training, and stay the same."""
    train, val, test = ({q.video_id for q in data.questions(split)} for split in ("train", "val", "test"))
    assert train and val and not train & val and not (train | val) & test
    assert train | val == {f"-train_qa{v:03d}_000030" for v in range(24)}
    rows = sorted(q.row for split in ("train", "val") for q in data.questions(split))
    assert rows == list(range(24 * len(AVQA_TYPES)))
    assert {q.video_id for q in AVQA(root=str(data.root), holdout=0.3).questions("val")} == val
    assert val <= {q.video_id for q in AVQA(root=str(data.root), holdout=0.5).questions("val")}


def test_the_share_held_out_depends_on_the_name():
    """And it is the share asked for."""
    names = [f"video{i}_000030" for i in range(20_000)]
    held = [is_held_out(name, 0.05) for name in names]
    assert 0.045 < sum(held) / len(held) < 0.055
    assert [i for i in range(60) if held[i]] == [43]         # by sha256sum; no release of Python may change it


def test_a_share_that_leaves_nothing_is_refused(data):
    with pytest.raises(DataError, match="dataset.holdout=1e-09 leaves no video of .*train_qa.json for val"):
        AVQA(root=str(data.root), holdout=1e-9).questions("val")


def test_a_batch_holds_the_candidates_and_which_is_right(data):
    vocabulary = data.vocabulary()
    spec = data.spec(vocabulary)
    assert (spec.segments, spec.choices, spec.answers, spec.words) == (3, 4, 0, 4)
    batch = next(iter(make_loader(data.question_set("val", vocabulary, SCENARIOS["complete"]), batch_size=8,
                                  shuffle=False)))
    assert batch.choices.shape == (8, 4, 4) and batch.choices.dtype == batch.words.dtype
    for i, q in enumerate(data.questions("val")[:8]):
        assert q.texts[batch.answer[i]] == q.answer
        assert batch.choices[i].tolist() == [vocabulary.encode_words(words) for words in q.choices]
