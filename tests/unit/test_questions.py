"""Annotation files with their quirks; the real ones when they are at hand."""

import json
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from dataset.questions import PLACEHOLDER, read_questions
from dataset.synthetic.templates import FILLS, TEMPLATES
from dataset.types import QUESTION_TYPES, DataError
from dataset.vocabulary import Vocabulary

REAL = Path(__file__).resolve().parents[3] / "shared" / "data" / "music_avqa"
RECORD = {"video_id": "00000028", "question_id": 7, "type": '["Audio-Visual", "Existential"]',
          "question_content": "Is the <Object> in the video always playing?", "templ_values": '["ukulele"]',
          "question_deleted": 0, "anser": "yes"}
needs_real = pytest.mark.skipif(not REAL.is_dir(), reason="the real annotations are not at hand")


def read(tmp_path: Path, *changes: dict) -> list:
    path = tmp_path / "avqa-train.json"
    path.write_text(json.dumps([{**RECORD, **change} for change in changes]), encoding="utf-8")
    return read_questions(path)


@pytest.mark.parametrize("text,values,words", [
    ("Is the <Object> in the video always playing?", ["ukulele"], "Is the ukulele in the video always playing"),
    ("How many sounding <Object> in the video\uff1f", ["acoustic_guitar"],
     "How many sounding acoustic_guitar in the video"),
    ("Are there <Object> and <Object> sound? ", ["cello", "erhu"], "Are there cello and erhu sound"),
    ("Is the <Object> louder than the <Object>?", ["piano", "violin"], "Is the piano louder than the violin"),
    ("What kind of instrument is the <LRer> instrument? ", ["leftest"],
     "What kind of instrument is the leftest instrument"),
])
def test_values_are_filled_after_the_punctuation_is_cut(tmp_path, text, values, words):
    """From left to right, so that a value in last place keeps its last letter."""
    question, = read(tmp_path, {"question_content": text, "templ_values": json.dumps(values)})
    assert question.words == tuple(words.split()) and question.template == text


@pytest.mark.parametrize("change,named", [
    ({"anser": None}, "anser"), ({"question_id": "seven"}, "question_id"),
    ({"templ_values": "ukulele"}, "templ_values"),
    ({"templ_values": "[]"}, "placeholders"), ({"type": '["Audio"]'}, "type"), ({"video_id": "../etc"}, "video_id"),
    ({"type": ["Audio", "Counting"]}, "type"), ({"type": '["Audio", "Countin"]'}, "Audio/Counting"),
    ({"question_content": "Is a < b?", "templ_values": "[]"}, "placeholder"),
    ({"question_content": "Is <a b> on?"}, "placeholder"),
    ({"question_content": "Is <A><B> on?", "templ_values": '["x", "y"]'}, "placeholder"),
    ({"question_content": "Is <Object> on"}, "question_content"),          # the cut would cost its last letter
    ({"question_content": " ?", "templ_values": "[]"}, "question_content"),
    ({"question_id": "7"}, "question_id"), ({"question_id": True}, "question_id"),
    ({"question_id": 2**70}, "less than"),
    ({"templ_values": "[" * 100_000}, "templ_values"), ({"anser": "\ud800"}, "anser"),
])
def test_a_bad_record_names_file_record_and_field(tmp_path, change, named):
    with pytest.raises(DataError, match="avqa-train.json, record 1") as error:
        read(tmp_path, {}, change)
    assert named in str(error.value)


@settings(deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(st.dictionaries(st.sampled_from(sorted(RECORD)),
                       st.none() | st.integers() | st.text(max_size=9) | st.lists(st.text(max_size=3), max_size=3)))
def test_any_record_gives_a_question_or_one_clear_error(tmp_path_factory, change):
    try:
        questions = read(tmp_path_factory.mktemp("a"), change)
    except DataError as error:
        assert "record 0" in str(error)
    else:
        assert len(questions[0].words) >= 1 and "/" in questions[0].type


def test_repeated_question_ids_stay_apart_by_row(tmp_path):
    first, second = read(tmp_path, {}, {"anser": "no"})
    assert first.question_id == second.question_id and (first.row, second.row) == (0, 1)


@needs_real
def test_real_annotations_have_the_counts_of_the_release():
    train, val = read_questions(REAL / "avqa-train_fake.json"), read_questions(REAL / "avqa-val.json")
    assert (len(train), len(val)) == (6233, 4568)
    vocabulary = Vocabulary.build(train)
    assert (len(vocabulary.words) - 1, len(vocabulary.answers)) == (84, 37)      # without the padding
    assert max(len(q.words) for q in val) == 14 and min(len(q.words) for q in val) >= 4
    assert {q.type for q in val} == set(QUESTION_TYPES)
    assert not any("<" in word or "?" in word or "\uff1f" in word for q in train + val for word in q.words)


@needs_real
def test_the_template_table_is_that_of_the_real_files():
    real = {(q.type, q.template) for q in read_questions(REAL / "avqa-val.json")}
    assert {(t.type, t.text) for t in TEMPLATES} == real and len(TEMPLATES) == 33
    for record in json.loads((REAL / "avqa-val.json").read_text()):
        slots = PLACEHOLDER.findall(record["question_content"])
        for slot, value in zip(slots, json.loads(record["templ_values"]), strict=True):
            assert slot == "<Object>" or value in FILLS[slot[1:-1]]
