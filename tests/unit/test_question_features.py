"""Question features: one row per text, mapped and not loaded, damage is one line."""

import mmap
from dataclasses import replace

import numpy as np
import pytest
from commands import write_avqa, write_dataset

from dataset.avqa import AVQA
from dataset.music_avqa import MusicAVQA
from dataset.question_features import QuestionFeatures
from dataset.types import DataError

TEXTS = ["Is there a lute sound", "Where is the kazoo"]


def arrays(dtype=np.float16):
    rng = np.random.default_rng(0)
    return {"texts": np.array(TEXTS), "words": rng.standard_normal((2, 5, 3)).astype(dtype),
            "question": rng.standard_normal((2, 3)).astype(dtype)}


@pytest.fixture
def asked(tmp_path):
    data = MusicAVQA(root=str(write_dataset(tmp_path / "data")))
    question = data.questions("train")[0]
    return [replace(question, words=tuple(text.split())) for text in TEXTS]


@pytest.mark.parametrize("dtype", [np.float16, np.float32])
@pytest.mark.parametrize("order", "CF")
def test_rows_are_those_numpy_reads_and_the_file_stays_on_disk(tmp_path, asked, dtype, order):
    values = arrays(dtype)
    values["words"] = np.asarray(values["words"], order=order)
    np.savez(tmp_path / "text.npz", **values)
    features = QuestionFeatures(tmp_path / "text.npz")
    assert features.channels == 3
    for row in (1, 0):
        words, question = features.read(asked[row])
        assert words.dtype == question.dtype == dtype
        np.testing.assert_array_equal(words, values["words"][row])
        np.testing.assert_array_equal(question, values["question"][row])
        assert words.flags.owndata
    base = features.words
    while isinstance(base, np.ndarray):
        base = base.base
    assert isinstance(base, mmap.mmap)


@pytest.mark.parametrize("damage", [
    lambda p: p.write_bytes(b""),
    lambda p: p.write_bytes(b"no archive"),
    lambda p: p.write_bytes(p.read_bytes()[:300]),
    lambda p: p.unlink(),
    lambda p: np.savez_compressed(p, **arrays()),
    lambda p: np.savez(p, texts=np.array(TEXTS)),
    lambda p: np.savez(p, **{**arrays(), "texts": np.array(TEXTS, dtype=object)}),
    lambda p: np.savez(p, **{**arrays(), "texts": np.arange(2)}),
    lambda p: np.savez(p, **{**arrays(), "texts": np.array(TEXTS[0])}),
    lambda p: np.savez(p, **{**arrays(), "texts": np.array([*TEXTS, "more"])}),
    lambda p: np.savez(p, **{**arrays(), "words": np.ones((2, 5, 4), np.float16)}),
    lambda p: np.savez(p, **{**arrays(), "words": np.ones((2, 3), np.float16)}),
    lambda p: np.savez(p, **{**arrays(), "question": np.ones((2, 3), int)}),
])
def test_damage_is_one_error_that_names_the_file(tmp_path, damage):
    path = tmp_path / "text.npz"
    np.savez(path, **arrays())
    damage(path)
    with pytest.raises(DataError, match="question features .*text.npz"):
        QuestionFeatures(path)


def test_nan_and_unknown_questions_are_named(tmp_path, asked):
    values = arrays()
    values["words"][1, 2, 1] = np.nan
    np.savez(tmp_path / "text.npz", **values)
    features = QuestionFeatures(tmp_path / "text.npz")
    features.read(asked[0])
    with pytest.raises(DataError, match="row 1 of question features .* holds NaN"):
        features.read(asked[1])
    with pytest.raises(DataError, match="hold nothing for 'Who plays'"):
        features.check([asked[0], replace(asked[0], words=("Who", "plays"))])


def test_a_split_with_an_unread_question_is_refused(tmp_path):
    root = write_dataset(tmp_path / "data")
    np.savez(root / "feats/text.npz", **arrays())
    data = MusicAVQA(root=str(root), stride=2, question_features="feats/text.npz")
    with pytest.raises(DataError, match="hold nothing for 'Is there a theremin sound'"):
        data.question_set("train", data.vocabulary())


def test_a_checkpoint_asks_for_the_channels_it_was_trained_on(tmp_path):
    root = write_dataset(tmp_path / "data")
    np.savez(root / "feats/text.npz", **arrays())
    options = {"root": str(root), "stride": 2}
    data, plain = MusicAVQA(**options, question_features="feats/text.npz"), MusicAVQA(**options)
    spec = data.spec(data.vocabulary())
    data.check(spec)
    data.check(plain.spec(plain.vocabulary()))               # features that nothing reads do no harm
    with pytest.raises(DataError, match="trained with question features of 3 channels, those at hand have none"):
        plain.check(spec)


def test_questions_with_candidates_find_theirs(tmp_path):
    root = write_avqa(tmp_path / "data")
    data = AVQA(root=str(root), holdout=0.2)
    texts = sorted({" ".join(q.words) for split in ("train", "test") for q in data.questions(split)})
    words = np.random.default_rng(0).standard_normal((len(texts), 5, 3)).astype(np.float16)
    np.savez(root / "text.npz", texts=np.array(texts), words=words, question=words[:, 0])
    data = AVQA(root=str(root), holdout=0.2, question_features="text.npz")
    item = data.question_set("test", data.vocabulary())[3]
    row = texts.index(" ".join(data.questions("test")[3].words))
    np.testing.assert_array_equal(item.text_words[0], words[row])
