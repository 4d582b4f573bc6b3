"""The tab of one's own clip without a browser: what is shown, answered and said."""

import numpy as np
import pytest
import toy_page
from toy_page import ASKED, make_clip_run, write_clips

from dataset.types import AUDIO, VISUAL
from scripts.page.answers import STATES, answer
from scripts.page.clip_desk import NO_CLIP, NO_RUN, ClipDesk
from scripts.page.runs import Runs

EVERY = ["1", "2"]


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("clips")
    write_clips(folder)
    return folder


@pytest.fixture(scope="module")
def desk(folder):
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("engine.answerer.build_extractor", toy_page.build_extractor)
        yield ClipDesk(Runs([make_clip_run(folder)], {}, "cpu"))


@pytest.fixture(scope="module")
def label(desk):
    return desk.runs.fitting(synthetic=False)[0]


def test_the_columns_show_what_the_run_says(desk, folder, label):
    """And the floor, as the run's own training questions are at hand."""
    clip = str(folder / "clip.mp4")
    page = desk.result(clip, ["1"], EVERY, ASKED, [label, label])
    assert page.count("data-state") == len(STATES) and "sound 1 of 2, picture whole" in page
    assert "Bayes oracle" not in page and "yes: the majority answer of training" in page
    answerer = desk.runs.open(label)
    streams = answerer.read(clip)
    given, _ = answer(answerer, streams, ASKED, np.array([[True, True], [False, True]]))
    assert f"{100 * given.best[0][1]:.1f} %" in page and given.best[0][0] in page


def test_the_strip_has_frames_waves_and_a_heat_map(desk, folder, label):
    clip = str(folder / "clip.mp4")
    plain, heated = (desk.picture(clip, EVERY, EVERY, question, [label]) for question in (None, ASKED))
    assert plain.count("<img") == heated.count("<img") == 2 and plain.count('aria-label="sound"') == 2
    assert plain != heated and "class=off" not in plain
    assert desk.picture(clip, ["1"], [], ASKED, [label]).count("class=off") == 3
    assert desk.picture(clip, EVERY, EVERY, "xyzzy?", [label]) == plain


@pytest.mark.parametrize("name, sentence", [
    ("silent", "This clip has no sound"), ("dark", "This clip has no picture"), (None, NO_CLIP), (" ", NO_CLIP),
    ("text", "The clip text.mp4 cannot be decoded"), ("none", "There is no file none.mp4"),
])
def test_odd_clips_are_one_sentence(desk, folder, label, name, sentence):
    path = str(folder / f"{name}.mp4") if name and name.strip() else name
    page = desk.picture(path, EVERY, EVERY, ASKED, [label])
    assert sentence in page and str(folder) not in page
    page = desk.result(path, EVERY, EVERY, ASKED, [label])
    missing = {"silent": "sound missing, picture whole", "dark": "sound whole, picture missing"}
    assert missing.get(name, sentence) in page and "Traceback" not in page


def test_without_a_run_the_clip_is_shown(folder):
    desk = ClipDesk(Runs([], {}, "cpu"))
    clip = str(folder / "clip.mp4")
    assert desk.picture(clip, EVERY, EVERY, ASKED, ["", None]).count("<img") == 2
    assert NO_RUN in desk.result(clip, EVERY, EVERY, ASKED, ["", None]) == desk.result(None, [], [], None, [])
    assert desk.segments(None) == 10 and len(desk.picker(None).types()) == 9


def test_questions_that_cannot_be_asked_are_one_sentence(desk, folder, label):
    clip = str(folder / "clip.mp4")
    assert "Ask something" in desk.result(clip, EVERY, EVERY, " ", [label])
    assert "holds no word of the vocabulary" in desk.result(clip, EVERY, EVERY, "xyzzy?", [label])
    assert "is gone" in desk.result(clip, EVERY, EVERY, ASKED, ["no such run"])
    assert "never gives the answer" in desk.result(clip, EVERY, EVERY, ASKED, [label], "moon, sun")
    assert 'data-state="complete"' in desk.result(clip, EVERY, EVERY, ASKED, [label], "lute, stage")


def test_the_picker_knows_the_words_of_the_run(desk, label):
    picker = desk.picker(label)
    assert picker.types() == ["Audio/Counting", "Visual/Location", "Audio-Visual/Location"]
    text = picker.of_type("Audio/Counting")[0]
    assert set(picker.values(picker.find(text))[0]) == set(toy_page.KINDS) and desk.shape(label) == (2, False)


def test_what_is_switched_off_is_not_extracted_into_the_answer(desk, folder, label):
    answerer = desk.runs.open(label)
    streams, left = answerer.read(folder / "clip.mp4"), np.array([[True, False], [True, False]])
    wanted = answer(answerer, streams, ASKED, left)[0]
    streams.visual[:] = float("nan")
    assert answer(answerer, streams, ASKED, left)[0] == wanted
    assert streams.presence[:, VISUAL].all() and streams.presence[:, AUDIO].all()
