"""MUSIC-AVQA-R and FortisAVQA: questions in other words, in head and tail; unseen words."""

import json
from collections import Counter

import pytest
import toy_data

from dataset import build_dataset
from dataset.music_avqa_r import FortisAVQA, MusicAVQAR, RephrasedRecord
from dataset.overlap import doubles
from dataset.questions import MusicAVQARecord, read_questions
from dataset.synthetic.templates import ASKABLE
from dataset.types import DataError, Question
from dataset.vocabulary import Vocabulary
from engine.metrics import Record, by_part, percentage, table

RECORD = {"video_id": "00000823", "question_id": 2945, "type": '["Audio", "Comparative"]', "anser": "yes",
          "question_content": "Is the clarinet louder than the acoustic_guitar", "split": "tail", "x": 0.79}


def read(folder, *changes, schema=RephrasedRecord):
    path = folder / "avqa-test-headtail.json"
    path.write_text(json.dumps([{**RECORD, **change} for change in changes]))
    return read_questions(path, schema)


@pytest.mark.parametrize("text,words", [
    ("Is the clarinet louder than the acoustic_guitar", "Is the clarinet louder than the acoustic_guitar"),
    ("When compared to the cello, does the clarinet sound louder? ",
     "When compared to the cello does the clarinet sound louder"),
    ("What's the (first) one\uff1f", "What's the first one"),
])
def test_only_punctuation_is_cut(tmp_path, text, words):
    question, = read(tmp_path, {"question_content": text})
    assert question.words == tuple(words.split()) and question.part == "tail" and question.question_id == 2945


def test_questions_of_the_first_release_keep_their_words(tmp_path):
    """So one file of question features serves both."""
    record = {**RECORD, "question_content": "Are there <Object> and <Object> sound? ", "templ_values": '["a", "b"]'}
    texts = [read(tmp_path, record, schema=schema)[0].words for schema in (MusicAVQARecord, RephrasedRecord)]
    assert texts[0] == texts[1] == ("Are", "there", "a", "and", "b", "sound")


@pytest.mark.parametrize("change,field", [
    ({"split": "middle"}, "split"), ({"question_content": " ?, "}, "question_content"),
    ({"question_content": None}, "question_content"), ({"type": "Audio"}, "type"), ({"anser": ""}, "anser"),
])
def test_a_bad_record_names_record_and_field(tmp_path, change, field):
    with pytest.raises(DataError, match=rf"record 1 \(question_id 2945\), field '{field}'"):
        read(tmp_path, {}, change)


@pytest.mark.parametrize("kind,options", [(MusicAVQAR, toy_data.music_avqa_r), (FortisAVQA, toy_data.fortis_avqa)])
def test_training_is_that_of_music_avqa(tmp_path, kind, options):
    data = kind(**options(tmp_path / "data"), root=str(tmp_path / "data"))
    original = build_dataset({"name": "music_avqa", "root": data.root, "stride": 2})
    assert data.questions("train") == original.questions("train")
    asked = data.questions("test")
    assert Counter(q.part for q in asked) == {"head": 24, "tail": 24} and len({q.question_id for q in asked}) == 24
    assert doubles(asked, original.questions("test")) == 48 and doubles(asked, original.questions("train")) == 0


def test_unseen_words_are_counted():
    def question(*words):
        return Question(0, 0, "v", "Audio/Counting", " ".join(words), words, "yes")

    vocabulary = Vocabulary.build([question("Is", "there", "a", "cello")])
    assert vocabulary.note([question("Is", "a", "cello", "there")], False) == []
    asked = [question("Is", "a", "kazoo", "there"), question("a", "kazoo", "or", "lute", "there")]
    line, = vocabulary.note(asked, False)
    assert line.startswith("note: 2 of 2 questions hold words that training never saw (3 words, most often 'kazoo',")
    assert "; 1 are longer than 4 words" in line and line.endswith("cannot be judged on them")
    assert "judged" not in vocabulary.note([question("kazoo")], True)[0]


def test_head_tail_and_both_are_reported():
    """Head and tail make up the whole, and stand in the table under it."""
    types = ("Audio/Counting", "Visual/Location")
    records = [Record(i, 7, "v", types[i % 2], "complete", "yes", ("yes", "no")[i > 3], .5) for i in range(9)]
    parts = {i: "tail" if i >= 6 else "head" for i in range(9)}
    cells = by_part(records, parts, dict.fromkeys(range(9), True))
    assert list(cells) == ["head", "tail"] and (cells["head"]["n"], cells["tail"]["n"]) == (6, 3)
    assert cells["head"]["overall"] == pytest.approx(100 * 4 / 6) and cells["tail"]["overall"] == 0
    whole = sum(cell["overall"] * cell["n"] for cell in cells.values()) / 9
    assert whole == pytest.approx(percentage(r.correct for r in records))
    result = {**cells["head"], "by_part": cells}
    assert [line.split()[0] for line in table({"complete": result}).splitlines()[2:]] == ["complete", "head", "tail",
                                                                                           "floor"]


@pytest.fixture(scope="module")
def scenes(tmp_path_factory):
    root = str(tmp_path_factory.mktemp("scenes") / "data")
    options = {"name": "synthetic", "root": root, "train_videos": 300, "val_videos": 1, "test_videos": 300,
               "channels": 8}
    return build_dataset(options), build_dataset({**options, "rephrased": True})


def test_rephrased_scenes_ask_the_same(scenes):
    """Row, video, type, answer and filled-in values stay; the text is one that training never has.

    So the oracle stays, too, and no file of the benchmark changes.
    """
    plain, other = scenes
    assert other.questions("train") == plain.questions("train") and other.questions("val") == plain.questions("val")
    trained = {q.words for q in plain.questions("train")}
    asked = {q.template for q in plain.questions("test")}
    assert len(asked) == len(ASKABLE)
    for one, two in zip(plain.questions("test"), other.questions("test"), strict=True):
        names = ("row", "question_id", "video_id", "type", "answer", "sound")
        assert [getattr(one, name) for name in names] == [getattr(two, name) for name in names]
        assert two.words not in trained and two.template != one.template and "<" not in " ".join(two.words)
        values = [w for w, slot in zip(one.words, one.template.rstrip()[:-1].split(), strict=True) if "<" in slot]
        assert [w for w, slot in zip(two.words, two.template[:-1].split(), strict=True) if "<" in slot] == values


def test_known_and_new_words_are_parts(scenes):
    plain, other = scenes
    known = {word for q in plain.questions("train") for word in q.words}
    parts = Counter()
    for question in other.questions("test"):
        assert (question.part == "known words") == known.issuperset(question.words)
        parts[question.part] += 1
    assert min(parts["known words"], parts["new words"]) > 0.3 * sum(parts.values())
    assert plain.vocabulary().note(plain.questions("test"), False) == []
    assert f"note: {parts['new words']} of {sum(parts.values())} questions" in \
        plain.vocabulary().note(other.questions("test"), False)[0]
