"""MUSIC-AVQA-v2.0: records as released, the sound of another video, questions that stand twice."""

import json
from dataclasses import replace

import numpy as np
import pytest
import toy_data

from dataset import SCENARIOS, build_dataset
from dataset.music_avqa import MusicAVQA
from dataset.music_avqa_v2 import UNNUMBERED, MusicAVQAv2, V2Record
from dataset.overlap import doubles, note_on_doubles, other_releases
from dataset.questions import read_questions
from dataset.types import AUDIO, VISUAL, DataError
from engine.config import compose, override
from engine.errors import UsageError
from engine.restore import digest

RECORD = {"video_id": "6cjIJVzP6eI_#03_flip", "type": '["Audio-Visual", "Existential"]', "templ_values": "[]",
          "question_content": "Is this sound from the instrument in the video?", "anser": "no"}
NUMBERED = {**RECORD, "video_id": "sa00007079", "question_id": 47859.0, "question_deleted": 0.0, "unmatch_audio": None,
            "audio_instrument": None, "video_instrument": None, "person": None}
UNMATCHED = {**RECORD, "templ_values": [], "unmatch_audio": "00008531", "audio_instrument": "pipa",
             "video_instrument": "trumpet", "question_id": None}


def read(folder, *records):
    path = folder / "test_balance.json"
    path.write_text(json.dumps(records))
    return read_questions(path, V2Record)


@pytest.fixture
def data(tmp_path):
    root = tmp_path / "data"
    return MusicAVQAv2(root=str(root), **toy_data.music_avqa_v2(root))


def test_records_are_read_as_released(tmp_path):
    plain, numbered, unmatched = read(tmp_path, RECORD, NUMBERED, UNMATCHED)
    assert numbered.question_id == 47859 and numbered.sound is None
    assert plain.video_id == plain.video_of(AUDIO) == plain.video_of(VISUAL) == "6cjIJVzP6eI_#03_flip"
    assert (unmatched.video_of(AUDIO), unmatched.video_of(VISUAL)) == ("00008531", "6cjIJVzP6eI_#03_flip")
    assert plain.words == unmatched.words == tuple(RECORD["question_content"][:-1].split())


def test_a_number_is_made_from_the_content(tmp_path):
    """It is the same wherever the question stands, and no number of the first release."""
    first, _, other = read(tmp_path, RECORD, NUMBERED, UNMATCHED)
    _, again = read(tmp_path, NUMBERED, RECORD)
    assert first.question_id == again.question_id != other.question_id
    assert UNNUMBERED <= first.question_id < 2 * UNNUMBERED


@pytest.mark.parametrize("change,field", [
    ({"question_id": 1.5}, "question_id"), ({"question_id": "7"}, "question_id"),
    ({"question_id": True}, "question_id"), ({"question_id": float("inf")}, "question_id"),
    ({"templ_values": None}, "templ_values"),
    ({"templ_values": [1]}, "templ_values"), ({"unmatch_audio": "../x"}, "unmatch_audio"),
    ({"video_id": "a/b"}, "video_id"), ({"anser": None}, "anser"),
])
def test_a_bad_record_names_record_and_field(tmp_path, change, field):
    with pytest.raises(DataError, match=rf"test_balance.json, record 1 .*field '{field}"):
        read(tmp_path, RECORD, {**RECORD, **change})


def test_the_first_release_stays_strict(tmp_path):
    path = tmp_path / "avqa-test.json"
    path.write_text(json.dumps([UNMATCHED]))
    with pytest.raises(DataError, match="record 0"):
        read_questions(path)


def test_sound_comes_from_the_other_video(data):
    """Its values, its length and what it lacks; the picture stays the question's own."""
    question = data.questions("test")[-1]
    assert question.sound and question.sound != question.video_id
    batch = data.question_set("test", data.vocabulary())[question.row]
    for modality, values in ((AUDIO, batch.audio), (VISUAL, batch.visual)):
        np.testing.assert_array_equal(values[0], data.read(question.video_of(modality), modality))


def test_another_sound_is_other_data(tmp_path):
    """A run is not continued on it; the digest of questions without such sound is as ever."""
    plain, _, unmatched = questions = read(tmp_path, RECORD, NUMBERED, UNMATCHED)
    assert digest(questions) != digest([*questions[:2], replace(unmatched, sound="00008532")])
    assert digest([plain]) == "11acfba7247f52f4ce2f9a9869c8655150495a85f9db6816a4b67785aebb490e"


def test_the_other_videos_length_and_lack_count(data):
    root = data.root
    question = data.questions("test")[-1]
    path = root / "feats" / "vggish" / f"{question.sound}.npy"
    np.save(path, np.load(path)[:2])
    shorter = MusicAVQAv2(root=str(root), stride=2)
    presence = shorter.question_set("test", shorter.vocabulary())[question.row].presence[0]
    assert presence[:, AUDIO].tolist() == [True, False, False] and presence[:, VISUAL].all()
    path.unlink()
    with pytest.raises(DataError, match=question.sound):
        MusicAVQAv2(root=str(root), stride=2).check_files("test", SCENARIOS["complete"])
    (root / "feats" / "presence.json").write_text(json.dumps({question.sound: {"audio": 0, "visual": 6}}))
    lacking = MusicAVQAv2(root=str(root), stride=2)
    presence = lacking.question_set("test", lacking.vocabulary())[question.row].presence[0]
    assert not presence[:, AUDIO].any() and presence[:, VISUAL].all()


def test_new_videos_are_a_source_of_their_own():
    named = {name: MusicAVQAv2.source(name) for name in ("00000028", "va00004341", "iveNvQ4jCis_flip")}
    assert list(named.values()) == ["real", "synthetic", "additional"]
    assert MusicAVQA.source("iveNvQ4jCis_flip") is None


def test_questions_that_stand_in_another_file_are_counted(tmp_path):
    """The same text on the same video; not with another sound, another value or another video."""
    asked = read(tmp_path, RECORD, NUMBERED, UNMATCHED, {**RECORD, "video_id": "other"})
    assert doubles(asked, asked[:1]) == doubles(asked, asked[1:2]) == 1 and doubles(asked, asked) == 4
    assert doubles(asked, []) == 0
    spelled = [replace(asked[0], words=(*asked[0].words[:-1], asked[0].words[-1].upper() + ","))]
    assert doubles(spelled, asked[:1]) == 1


def test_other_releases_are_found_below_the_root(data):
    own = {data.annotation_file(split) for split in ("train", "val", "test")}
    (data.root / "json_v2" / "notes.json").write_text('{"no": "annotations"}')
    names = [str(path.relative_to(data.root)) for path in other_releases(data.root, own)]
    assert names == [f"json_update/avqa-{split}.json" for split in ("test", "train", "val")]


def test_a_checkpoint_is_warned_of_what_it_has_seen(data):
    trained_on = {"name": "music_avqa", "root": str(data.root), "stride": 2}
    assert note_on_doubles(data.questions("test"), trained_on).startswith("none of these questions")
    path = data.root / "json_update" / "avqa-train.json"
    path.write_text(json.dumps([*json.loads(path.read_text()),
                                *json.loads((data.root / "json_update" / "avqa-test.json").read_text())[:5]]))
    note = note_on_doubles(data.questions("test"), trained_on)
    assert note.startswith("warning: of these 24 questions 5 stand in training and 0 in validation of dataset=music")
    assert "not known" in note_on_doubles(data.questions("test"), {**trained_on, "root": "nowhere"})


def test_a_checkpoint_is_asked_another_data_set_alike():
    """With the options of that one; a data set with other options, or unknown, is refused."""
    config = compose(None, ["dataset=music_avqa", "dataset.root=x", "dataset.stride=2"])
    changed = override(config, ["dataset=music_avqa_v2", "dataset.root=y"])["dataset"]
    assert changed == {**compose(None, ["dataset=music_avqa_v2"])["dataset"], "root": "y"}
    assert build_dataset({**changed, "root": "."}).annotation_file("test").name == "test_balance.json"
    for name in ("avqa", "synthetic"):
        with pytest.raises(UsageError, match="trained with dataset=music_avqa; dataset cannot be changed"):
            override(config, [f"dataset={name}"])
    with pytest.raises(UsageError, match="music_avqa_v3.* is not known"):
        override(config, ["dataset=music_avqa_v3"])
