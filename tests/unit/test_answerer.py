"""Answerer: the answers of the evaluation, one question at a time, and what is refused."""

import json

import numpy as np
import pytest
import torch
from commands import SHORT, write_avqa, write_dataset

from dataset import build_dataset
from dataset.types import AUDIO, VISUAL
from engine.answerer import Answerer, Streams
from engine.errors import UsageError
from scripts.answer import as_text, presence_lines, read_file


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """A function that trains two steps on a data set and gives its run folder."""
    def run(*options):
        import main_train
        folder = tmp_path_factory.mktemp("runs")
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr("sys.argv", ["main_train.py", *options, *SHORT, "train.max_steps=2", f"run.root={folder}",
                                       "run.name=r"])
            main_train.main()
        return folder / "r"
    return run


@pytest.fixture(scope="module")
def open_run(trained, tmp_path_factory):
    root = write_dataset(tmp_path_factory.mktemp("own") / "data")
    return trained("dataset=music_avqa", f"dataset.root={root}", "dataset.stride=2"), root


def records(run):
    lines = map(json.loads, (run / "predictions.jsonl").read_text().splitlines())
    return {(r["scenario"], r["row"]): r for r in lines}


def streams(data, question):
    audio, visual = (torch.from_numpy(data.read(question.video_id, m)).float() for m in (AUDIO, VISUAL))
    return Streams(audio, visual, torch.ones(len(audio), 2, dtype=torch.bool))


def test_answers_are_those_of_the_evaluation(open_run):
    run, root = open_run
    data, answerer = build_dataset({"name": "music_avqa", "root": str(root), "stride": 2}), Answerer(run, device="cpu")
    for question in data.questions("test")[:6]:
        answer, = answerer.ask(streams(data, question), [" ".join(question.words) + "?"])
        wanted = records(run)["complete", question.row]
        assert answer.best[0] == (wanted["prediction"], pytest.approx(wanted["confidence"], abs=1e-5))
        assert sum(share for _, share in answer.best) == pytest.approx(1, abs=1e-5) and answer.notes == []


def test_what_is_missing_is_not_read(open_run):
    run, root = open_run
    data, answerer = build_dataset({"name": "music_avqa", "root": str(root), "stride": 2}), Answerer(run, device="cpu")
    whole, asked = streams(data, data.questions("test")[0]), ["Is there a kazoo sound?"]
    muted = whole.without(AUDIO)
    spoilt = Streams(torch.full_like(whole.audio, float("nan")), whole.visual, muted.presence)
    assert answerer.ask(muted, asked) == answerer.ask(spoilt, asked) != answerer.ask(whole, asked)
    assert presence_lines(muted.presence, "plain", (True, False)) == [
        "audio: missing (taken away by --mute); method=plain answers without it", "visual: present"]


def test_candidates_restrict_an_open_vocabulary(open_run):
    run, root = open_run
    data, answerer = build_dataset({"name": "music_avqa", "root": str(root), "stride": 2}), Answerer(run, device="cpu")
    seen = streams(data, data.questions("test")[0])
    free, chosen = answerer.ask(seen, ["Is there a kazoo sound?"] * 2, [[], ["stage", "lute"]])
    shares = dict(free.best)
    total = shares["stage"] + shares["lute"]
    assert dict(chosen.best) == {name: pytest.approx(shares[name] / total) for name in ("stage", "lute")}
    assert as_text([free, chosen], 2).splitlines()[0].split() == ["question", "answer", "or"]


def test_candidates_of_multiple_choice(trained, tmp_path):
    """In lower case as in the training, in any order and number, as the evaluation scores them."""
    root = write_avqa(tmp_path / "data")
    run = trained("dataset=avqa", f"dataset.root={root}", "dataset.holdout=0.3")
    data, answerer = build_dataset({"name": "avqa", "root": str(root), "holdout": 0.3}), Answerer(run, device="cpu")
    question = data.questions("test")[0]
    answer, = answerer.ask(streams(data, question), [question.template], [[text.title() for text in question.texts]])
    wanted = records(run)["complete", question.row]
    assert answer.best[0] == (wanted["prediction"].title(), pytest.approx(wanted["confidence"], abs=1e-5))
    with pytest.raises(UsageError, match="two different candidates or more; this checkpoint answers multiple choice"):
        answerer.ask(streams(data, question), [question.template])


@pytest.mark.parametrize("question,choices,message", [
    ("xyzzy plugh?", [], "'xyzzy plugh\\?' holds no word of the vocabulary"), ("?", [], "holds no word"),
    ("Is there a kazoo sound?", ["stage"], "two different candidates"),
    ("Is there a kazoo sound?", ["stage", "moon"], "never gives the answer 'moon'; it chooses among: .*stage"),
])
def test_what_cannot_be_asked_is_one_line(open_run, question, choices, message):
    with pytest.raises(UsageError, match=message):
        Answerer(open_run[0], device="cpu").prepare(question, choices)


def test_a_known_word_is_suggested(open_run):
    answerer = Answerer(open_run[0], device="cpu")
    words, notes = answerer.prepare("Is there a kazo sound of it in all the long video here?", [])
    assert words[3] == "kazo" and notes[0].endswith("did you mean 'kazoo'?")
    assert notes[-1].startswith("only the first 7 words are read")


def test_clip_reads_words_that_training_never_saw(trained, tmp_path):
    """As they are typed and without a note; a question of no word is none all the same."""
    root = write_dataset(tmp_path / "data")
    data = build_dataset({"name": "music_avqa", "root": str(root), "stride": 2})
    texts = sorted({" ".join(q.words) for split in ("train", "val", "test") for q in data.questions(split)})
    rng = np.random.default_rng(0)
    words, question = rng.random((len(texts), 4, 6), np.float32), rng.random((len(texts), 6), np.float32)
    np.savez(root / "feats/clip_words.npz", texts=np.array(texts), words=words, question=question)
    run = trained("dataset=music_avqa", f"dataset.root={root}", "dataset.stride=2", "backbone=pstp_net",
                  "backbone.text=clip", "dataset.question_features=feats/clip_words.npz")
    answerer, read = Answerer(run, device="cpu"), []

    def reader(asked):
        read.extend(asked)
        return words[len(read) - 1:len(read)], question[len(read) - 1:len(read)]

    answerer.text_reader = lambda: reader
    seen = streams(data, data.questions("test")[0])
    first, second = answerer.ask(seen, ["Does any Theremin resound?", "Whence comes it, and how very loud is it?"])
    assert read == ["Does any Theremin resound", "Whence comes it, and how very loud is it"]
    assert first.notes == second.notes == [] and first.best != second.best
    with pytest.raises(UsageError, match="holds no word"):
        answerer.ask(seen, ["?"])


def test_features_that_no_video_gives_are_refused(open_run, tmp_path):
    answerer = Answerer(open_run[0], device="cpu")
    answerer.config["dataset"]["audio_folder"] = "feats/own"
    with pytest.raises(UsageError, match="audio features cannot be made from a video"):
        answerer.read(tmp_path / "clip.mp4")


@pytest.mark.parametrize("line", ["", "[]", '"x"', "{}", '{"question": 1}', '{"question": "a", "choices": [1]}',
                                  '{"question": "a", "choices": 3}', '{"question": "a", "choices": "yes"}',
                                  "[" * 10_000])
def test_a_bad_line_of_questions_is_named(tmp_path, line):
    path = tmp_path / "questions.jsonl"
    path.write_text(f'{{"question": "Is it?", "choices": ["a", "b"]}}\n\n{line}\n')
    if not line:
        assert read_file(path) == [("Is it?", ["a", "b"])]
        return
    with pytest.raises(UsageError, match="questions.jsonl, line 3: expected"):
        read_file(path)
