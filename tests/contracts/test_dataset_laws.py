"""Laws of a data set, over every registered one at toy size (tests/toy_data.py)."""

import shutil
from dataclasses import replace

import numpy as np
import pytest
import torch
import toy_data

from dataset import DATASETS, SCENARIOS, Vocabulary, build_dataset, question_only_floor
from dataset.loader import QuestionSet
from dataset.types import AUDIO, MODALITIES, VISUAL, DataError

SPLITS = ("train", "val", "test")


@pytest.fixture(scope="module", params=DATASETS)
def options(request, tmp_path_factory):
    assert hasattr(toy_data, request.param), f"tests/toy_data.py needs a function {request.param}(root)"
    root = tmp_path_factory.mktemp(request.param) / "data"
    return {"name": request.param, **getattr(toy_data, request.param)(root), "root": str(root)}


@pytest.fixture(scope="module")
def data(options):
    return build_dataset(options)


@pytest.fixture
def copied(options, data, tmp_path):
    """A function that builds the data set over a copy of its files, which a test may damage."""
    shutil.copytree(data.root, tmp_path / "data")
    return lambda: build_dataset({**options, "root": str(tmp_path / "data")})


def whole(questions: QuestionSet):
    return questions.batch(list(range(len(questions))))


def same(one, other) -> bool:
    return all(torch.equal(value, getattr(other, name)) for name, value in vars(one).items() if value is not None)


@pytest.mark.parametrize("split", SPLITS)
def test_questions_are_read_the_same_twice(options, data, split):
    questions = data.questions(split)
    assert questions and questions == build_dataset(options).questions(split)
    assert len({q.row for q in questions}) == len(questions)
    assert all(q.words and q.type and (not q.choices or q.answer in q.texts) for q in questions)


@pytest.mark.parametrize("split", SPLITS)
def test_batches_have_the_shapes_of_the_spec(data, split):
    """And complete input holds every value of the files, unless the data themselves lack it."""
    vocabulary = data.vocabulary()
    spec, questions = data.spec(vocabulary), data.question_set(split, vocabulary)
    batch, size = whole(questions), len(questions)
    assert size == len(data.questions(split)) and spec.vocabulary == len(vocabulary.words)
    assert batch.audio.shape == (size, spec.segments, spec.audio_channels)
    assert batch.visual.shape == (size, spec.segments, spec.visual_channels, *spec.grid)
    assert batch.words.shape == (size, spec.words) and int(batch.words.max()) < spec.vocabulary
    assert batch.presence.shape == (size, spec.segments, 2) and batch.presence.dtype == torch.bool
    assert int(batch.answer.max()) < (spec.choices or spec.answers)
    assert (batch.choices is None) == (spec.choices == 0)
    for i, question in enumerate(questions.questions):
        for modality, values in enumerate((batch.audio, batch.visual)):
            present = batch.presence[i, :, modality].numpy()
            expected = data.read(question.video_of(modality), modality)[present]
            np.testing.assert_array_equal(values[i][present].numpy(), expected)


def test_training_knows_its_words_and_answers(data):
    vocabulary = data.vocabulary()
    assert Vocabulary(**vocabulary.to_dict()) == vocabulary
    batch = whole(data.question_set("train", vocabulary))
    assert bool((batch.answer >= 0).all())
    for words, question in zip(batch.words, data.questions("train"), strict=True):
        assert tuple(vocabulary.words[i] for i in words[words > 0]) == question.words


def test_a_share_of_the_training_questions_is_asked(options, data):
    """The smaller share within the larger one, in order; vocabulary and other splits stay."""
    every, counts, before = data.questions("train"), {}, set()
    for share in (1e-9, 0.3, 0.7, 1.0):
        part = build_dataset({**options, "train_questions": share})
        asked = part.asked("train")
        assert asked == [q for q in every if q in asked] == part.question_set("train", part.vocabulary()).questions
        assert before <= {q.row for q in asked} and len(asked) == max(1, round(share * len(every)))
        before, counts[share] = {q.row for q in asked}, len(asked)
        assert part.vocabulary() == data.vocabulary() and part.questions("train") == every
        assert part.asked("test") == data.questions("test") and part.asked("val") == data.questions("val")
    assert counts[1e-9] == 1 and counts[1.0] == len(every)


@pytest.mark.parametrize("negatives", ["none", "other_video"])
def test_a_batch_equals_its_questions_alone(data, negatives):
    questions = data.question_set("train", data.vocabulary(), negatives=negatives)
    positions = [3, 0, len(questions) - 1]
    batch = questions.batch(positions)
    for i, position in enumerate(positions):
        assert same(questions[position], batch.map(lambda value, i=i: value[i:i + 1]))


@pytest.mark.parametrize("scenario", SCENARIOS.values(), ids=lambda s: s.name)
def test_what_is_missing_is_absent_and_zero(data, scenario):
    vocabulary = data.vocabulary()
    complete, batch = (whole(data.question_set("test", vocabulary, s)) for s in (SCENARIOS["complete"], scenario))
    for modality, name in enumerate(MODALITIES):
        values, present = getattr(batch, name), batch.presence[..., modality]
        if scenario.missing in (name, "both"):
            assert not values[~present].any() and torch.equal(values[present], getattr(complete, name)[present])
            assert (~present).flatten(1).any(dim=1).all() and scenario.whole == (not present.any())
        else:
            assert torch.equal(values, getattr(complete, name))
            assert torch.equal(present, complete.presence[..., modality])


@pytest.mark.parametrize("modality", (AUDIO, VISUAL), ids=MODALITIES)
def test_a_missing_feature_file_is_one_line_naming_it(copied, modality):
    before = copied()
    video = before.questions("test")[0].video_id
    path = before.stores[modality].folder / f"{video}.npy"
    path.unlink()
    data = copied()
    with pytest.raises(DataError, match=str(path)) as error:
        data.question_set("test", data.vocabulary())
    assert "\n" not in str(error.value)
    assert len(data.question_set("test", data.vocabulary(), SCENARIOS[f"{MODALITIES[modality]}_missing"]))


@pytest.mark.parametrize("content", [b"", b"[]", b"{}", b"[{}]", b"\xff\xfe", b"[" * 100_000, b"[" + b"1" * 5000 + b"]",
                                     "nothing", "a folder"], ids=lambda content: str(content[:9]))
def test_a_damaged_annotation_file_is_one_line(copied, content):
    data = copied()
    path = data.annotation_file("test")
    path.unlink()
    if content == "a folder":
        path.mkdir()
    elif content != "nothing":
        path.write_bytes(content)
    with pytest.raises(DataError, match=str(path)) as error:
        data.questions("test")
    assert "\n" not in str(error.value)


def test_a_checkpoint_of_other_shapes_is_refused(data):
    spec = data.spec(data.vocabulary())
    data.check(spec)
    with pytest.raises(DataError, match="the checkpoint was trained on"):
        data.check(replace(spec, segments=spec.segments + 1))


def test_floor_and_oracle_judge_every_question(data):
    questions = data.questions("test")
    assert len(question_only_floor(data.questions("train"), questions)) == len(questions)
    for scenario in SCENARIOS.values():
        oracle = data.oracle("test", scenario)
        assert oracle is None or set(oracle) == {q.row for q in questions}
