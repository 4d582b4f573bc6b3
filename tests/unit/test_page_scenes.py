"""The tab of the scenes without a browser: what is answered, drawn, heard and said."""

import base64
import io
import wave

import numpy as np
import pytest
import torch
from toy_page import make_scenes

from dataset.synthetic.templates import ANSWERS, ASKABLE, TEMPLATES
from dataset.synthetic.world import KINDS, SEGMENTS
from dataset.types import AUDIO, VISUAL
from engine.answerer import Answerer, Streams
from scripts import explore
from scripts.page.answers import STATES, answer, distances, effective_slots, presence_of, switched
from scripts.page.benchmark import Benchmark
from scripts.page.picker import Picker, objects
from scripts.page.runs import Runs, read_run
from scripts.page.scene import draw_stage, draw_time
from scripts.page.scene_desk import NO_QUESTION, NO_RUN, NO_TEMPLATE, UNFIT, SceneDesk
from scripts.page.sound import RATE, render, wav_text

EVERY = [str(t + 1) for t in range(SEGMENTS)]
ALL = np.ones((SEGMENTS, 2), bool)


@pytest.fixture(scope="module")
def scenes(tmp_path_factory):
    return make_scenes(tmp_path_factory.mktemp("page"))


@pytest.fixture(scope="module")
def desk(scenes):
    root, runs = scenes
    return SceneDesk(Benchmark(root), Runs([runs[0].parent], {}, "cpu"))


@pytest.fixture(scope="module")
def labels(desk):
    return desk.runs.first_two(desk.runs.fitting(synthetic=True))


def heard_first(desk):
    """A scene of which something sounds before the last second."""
    return int((desk.benchmark.scenes.heard.sum(axis=1) > 0).argmax())


def test_the_page_makes_the_scenes_of_the_files(desk):
    """Whoever is where, as the annotations of the test split say."""
    questions = [q for of_video in desk.benchmark.questions.values() for q in of_video]
    for question in questions:
        number = int(question.video_id.removeprefix("test"))
        template, choice = desk.benchmark.find(" ".join(question.words) + " ?")
        _, right = ASKABLE[template].ask(desk.benchmark.scene(number), *ASKABLE[template].choices[choice])
        assert ANSWERS[right[0]] == question.answer
        assert [name for name, _ in desk.benchmark.posterior(number, (template, choice), ALL).best] == [question.answer]


def test_the_floor_is_the_majority_of_training(desk):
    train = desk.benchmark.data.questions("train")
    words = train[0].words
    given = [q.answer for q in train if q.words == words]
    assert given.count(desk.benchmark.floor(" ".join(words) + "?")) == max(map(given.count, given))
    assert desk.benchmark.floor("Who is it?") is None


def test_columns_show_what_the_model_says(desk, labels):
    """Each of the four states, for both runs, as an Answerer of its own answers."""
    assert [label.split(":")[0] for label in labels] == ["avst + rmm_avr", "avst + plain"]
    question, switches = desk.questions(0)[0], switched(["1", "2"], EVERY, SEGMENTS)
    remarks = []
    for state in STATES:
        column = desk.column(0, state, switches, question, labels, remarks)
        for said in column.runs:
            answerer = Answerer(desk.runs.by_label[said.label].path, device="cpu")
            left = desk.benchmark.streams(0).only(torch.from_numpy(presence_of(state, switches)))
            assert said.answer == answerer.ask(left, [question])[0]
            assert set(said.look.attention) == {"audio", "visual", "space"}
        page = desk.result(0, ["1", "2"], EVERY, question, labels)
        assert column.runs[0].answer.best[0][0] in page and f'data-state="{state}"' in page
    assert remarks == [] and "sound 2 of 6, picture whole" in page


def test_what_is_switched_off_is_not_read(desk, labels):
    """Law L1 on the page: NaN in the switched-off data, the same answers, attention and slots."""
    question, whole = desk.questions(0)[0], desk.benchmark.streams(0)
    for sound, picture in (([], EVERY), (EVERY, []), (["2"], ["1", "6"]), ([], [])):
        left = switched(sound, picture, SEGMENTS)
        audio, visual = whole.audio.clone(), whole.visual.clone()
        audio[~left[:, AUDIO]], visual[~left[:, VISUAL]] = float("nan"), float("nan")
        for label in labels:
            answerer = desk.runs.open(label)
            wanted, look = answer(answerer, whole, question, left)
            given, spoilt = answer(answerer, Streams(audio, visual, whole.presence), question, left)
            assert given == wanted
            for one, other in ((look.attention, spoilt.attention), (look.slots, spoilt.slots)):
                assert one.keys() == other.keys()
                assert all(np.array_equal(one[name], other[name]) for name in one)


def test_a_slot_and_a_distance_are_shown_where_missing(desk, labels):
    question, whole = desk.questions(0)[0], desk.benchmark.streams(0)
    paper, plain = (desk.runs.open(label) for label in labels)
    for label, left, stages in ((paper, presence_of("audio missing", ALL), {"recalled", "refined"}),
                                (plain, presence_of("audio missing", ALL), {"stand-in"})):
        apart = distances(label, whole, question, left)
        assert set(apart) == stages and all(set(by) == {"audio"} for by in apart.values())
    assert apart["stand-in"]["audio"] == pytest.approx(1)                # zeros
    assert distances(paper, whole, question, ALL) == {}
    _, look = answer(paper, whole, question, presence_of("audio missing", ALL))
    assert look.slots["audio"].shape == (SEGMENTS, 5) and 1 <= effective_slots(look.slots["audio"]) <= 5.001
    assert effective_slots(np.full((2, 5), 0.2)) == pytest.approx(5)


@pytest.mark.parametrize("question, sentence", [
    ("", NO_QUESTION), (None, NO_QUESTION), ("xyzzy plugh?", "holds no word of the vocabulary"),
    ("Is there a celo sound?", "outside the vocabulary and is ignored; did you mean"), ("Who sound?", NO_TEMPLATE),
    ("<script>alert(1)</script> sound?", "&lt;script&gt;"),
])
def test_what_cannot_be_asked_is_one_sentence(desk, labels, question, sentence):
    page = desk.result(0, EVERY, EVERY, question, labels)
    assert sentence in page.replace("&#x27;", "'") and "Traceback" not in page and "<script" not in page


def test_no_run_and_odd_scenes_are_one_sentence(desk, labels):
    for number in (None, -1, 12, 0.5):
        for page in (desk.picture(number, EVERY, EVERY), desk.result(number, EVERY, EVERY, "Is it?", labels)):
            assert "Give the number of a test scene, 0 to 11" in page
    question = desk.questions(0)[0]
    page = desk.result(0, EVERY, EVERY, question, ["", None])
    assert NO_RUN in page and "Bayes oracle" in page
    assert "is gone" in desk.result(0, EVERY, EVERY, question, ["no such run"])
    unfit = next(q for q in (f"Is the {a} louder than the {b}?" for a in KINDS for b in KINDS if a != b)
                 if desk.benchmark.posterior(0, desk.benchmark.find(q), ALL).best == [])
    assert UNFIT in desk.result(0, EVERY, EVERY, unfit, labels)


def test_runs_are_found_and_others_passed_over(scenes, tmp_path):
    root, runs = scenes
    (tmp_path / "empty").mkdir()
    (tmp_path / "odd").mkdir()
    (tmp_path / "odd" / "best.pt").write_bytes(b"no")
    (tmp_path / "odd" / "config.yaml").write_text("[1, 2]")
    assert Runs([tmp_path, tmp_path / "none"], {}, "cpu").by_label == {}
    assert read_run(runs[0]).method == "rmm_avr" and read_run(runs[0]).synthetic
    assert Runs([runs[1]], {}, "cpu").first_two([f"avst + plain: {runs[1].name}"]) == [f"avst + plain: {runs[1].name}"]


def test_a_scene_is_drawn_and_fades_with_the_switches(desk):
    number = heard_first(desk)
    scene = desk.benchmark.scene(number)
    names = [KINDS[kind] for kind in np.flatnonzero(scene.exists[0])]
    time = draw_time(scene, ALL)
    assert all(f">{name}<" in time for name in names) and "class=off" not in time
    assert draw_time(scene, ~ALL).count("class=off") == 2 * SEGMENTS * len(names)
    stage = draw_stage(scene, ALL[:, VISUAL])
    assert [f">{name}<" in stage for name in KINDS] == scene.seen[0].tolist()
    assert "no picture" in draw_stage(scene, ~ALL[:, VISUAL])
    assert "<audio" in desk.picture(number, EVERY, EVERY)


def test_the_sound_is_silent_where_it_is_switched_off(desk):
    number = heard_first(desk)
    scene, switches = desk.benchmark.scene(number), np.array([False] * 4 + [True, False])
    sound = render(scene, switches).reshape(SEGMENTS, RATE)
    assert np.abs(sound).max(axis=1).astype(bool).tolist() == switches.tolist() and np.abs(sound).max() <= 1
    scene.onset[~switches[scene.onset]] = 0
    louder = scene[np.array([0])]
    louder.loudness[:], scene.loudness[:] = 2, 0
    assert np.square(render(louder, switches)).sum() > np.square(render(scene, switches)).sum()
    with wave.open(io.BytesIO(base64.b64decode(wav_text(sound.ravel()).partition(",")[2]))) as file:
        assert (file.getframerate(), file.getnframes()) == (RATE, SEGMENTS * RATE)


def test_the_picker_asks_every_template_in_known_words(desk):
    picker = Picker()
    texts = [text for type_ in picker.types() for text in picker.of_type(type_)]
    assert len(texts) == len(TEMPLATES) == 33
    asked = [picker.question(text, picker.first_values(text)) for text in texts]
    assert sum(desk.benchmark.find(question) is not None for question in asked) == len(ASKABLE)
    words = Answerer(next(iter(desk.runs.by_label.values())).path, device="cpu").vocabulary.words
    assert set(objects(words)) <= set(KINDS) and objects(words)
    few = Picker(["kazoo"], {"Is", "there", "a", "kazoo", "sound"})
    assert [text for type_ in few.types() for text in few.of_type(type_)] == ["Is there a <Object> sound?"]


def test_switches_of_another_strip_are_ignored():
    assert switched(["1", "7", "x", "0", "-1"], [], 6).nonzero()[0].tolist() == [0]


def test_without_gradio_one_line_says_what_to_install(monkeypatch, capsys):
    monkeypatch.setattr("sys.argv", ["explore.py"])
    monkeypatch.setattr("engine.errors.find_spec", lambda name: None if name == "gradio" else name)
    with pytest.raises(SystemExit) as stop:
        explore.main()
    assert stop.value.code == 2
    assert capsys.readouterr().err == "error: gradio: not installed; pip install -r requirements/page.txt\n"
