"""Batches: order, shares of processes, absent files left unread, negatives of other videos."""

import threading

import numpy as np
import pytest
import torch
from commands import write_dataset
from hypothesis import given
from hypothesis import strategies as st

from dataset import SCENARIOS, Scenario, make_loader
from dataset.loader import epoch_order
from dataset.music_avqa import MusicAVQA


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    return MusicAVQA(root=str(write_dataset(tmp_path_factory.mktemp("loader") / "data")), stride=2)


@given(st.integers(1, 60), st.integers(1, 5), st.integers(0, 9), st.integers(0, 9))
def test_processes_share_the_questions(size, world, seed, epoch):
    def parts(shuffle):
        return [epoch_order(size, shuffle, seed, epoch, rank, world) for rank in range(world)]
    assert sorted(sum(parts(False), [])) == list(range(size))
    shuffled = parts(True)
    assert len({len(p) for p in shuffled}) == 1 and len(set(sum(shuffled, []))) == size - size % world
    assert shuffled == parts(True)


def test_epochs_are_shuffled_differently():
    assert epoch_order(50, True, 1, 0, 0, 1) != epoch_order(50, True, 1, 1, 0, 1)


def test_values_come_from_the_right_file_and_rows(data):
    vocabulary = data.vocabulary()
    batch = next(iter(make_loader(data.question_set("val", vocabulary), batch_size=24, shuffle=False)))
    for i, q in enumerate(data.questions("val")):
        file = np.load(data.root / "feats/res18_14x14" / f"{q.video_id}.npy")
        np.testing.assert_array_equal(batch.visual[i].numpy(), file[::2])
        assert vocabulary.answers[batch.answer[i]] == q.answer and batch.question_id[i] == q.question_id
    assert batch.audio.shape == (24, 3, 5) and batch.visual.shape == (24, 3, 16, 2, 2)
    assert len(set(batch.video.tolist())) == 8


def test_the_file_of_an_absent_modality_is_not_read(tmp_path):
    root = write_dataset(tmp_path / "data")
    (root / "feats/vggish/test0003.npy").write_bytes(b"damaged")
    data = MusicAVQA(root=str(root), stride=2)
    questions = data.question_set("test", data.vocabulary(), SCENARIOS["audio_missing"])
    item = next(questions[i] for i, q in enumerate(questions.questions) if q.video_id == "test0003")
    assert not item.presence[..., 0].any() and not item.audio.any() and item.visual.any()


def test_absent_segments_hold_zeros_and_the_others_their_values(data):
    scenario = Scenario("s", "visual", segments=0.4)
    item = data.question_set("test", data.vocabulary(), scenario)[0]
    whole = data.question_set("test", data.vocabulary())[0]
    present = item.presence[0, :, 1]
    assert (~present).sum() == 1 and not item.visual[0][~present].any()
    assert torch.equal(item.visual[0][present], whole.visual[0][present])


def test_negatives_are_of_other_videos_and_of_the_epoch(data):
    questions = data.question_set("train", data.vocabulary(), negatives="other_video", seed=3)
    rows = {file.stem: np.load(file) for file in (data.root / "feats/res18_14x14").glob("train*.npy")}
    for i in range(len(questions)):
        own = questions.questions[i].video_id
        for segment in questions[i].negative_visual[0].numpy():
            holders = [name for name, file in rows.items() if (file == segment).all(axis=(1, 2, 3)).any()]
            assert holders and own not in holders
    again = data.question_set("train", data.vocabulary(), negatives="other_video", seed=3, epoch=1)
    assert not torch.equal(questions[0].negative_visual, again[0].negative_visual)
    assert torch.equal(questions[0].negative_visual, questions[0].negative_visual)


@pytest.mark.parametrize("workers", [1, 3])
def test_threads_give_the_batches_of_no_thread_in_order(data, workers):
    questions = data.question_set("train", data.vocabulary(), negatives="other_video")
    alone = list(make_loader(questions, batch_size=5, shuffle=True, seed=4))
    together = list(make_loader(questions, batch_size=5, shuffle=True, seed=4, workers=workers))
    assert [len(b) for b in together] == [5, 5, 5, 5, 4]
    for a, b in zip(alone, together, strict=True):
        assert all(torch.equal(v, getattr(b, k)) for k, v in vars(a).items() if v is not None)


def test_a_loader_that_is_left_early_stops_its_threads(data):
    questions = data.question_set("train", data.vocabulary())
    batches = iter(make_loader(questions, batch_size=1, shuffle=False, workers=2))
    next(batches)
    assert any(t.name.startswith("loader") for t in threading.enumerate())
    batches.close()
    assert not any(t.name.startswith("loader") for t in threading.enumerate())


def test_half_precision_travels_as_it_is_stored(tmp_path):
    """And `Batch.to` makes it single precision."""
    root = write_dataset(tmp_path / "data")
    for file in (root / "feats").rglob("*.npy"):
        np.save(file, np.load(file).astype(np.float16))
    data = MusicAVQA(root=str(root), stride=2)
    for scenario in ("complete", "audio_missing"):
        batch = next(iter(make_loader(data.question_set("val", data.vocabulary(), SCENARIOS[scenario]), batch_size=3,
                                      shuffle=False)))
        moved = batch.to("cpu")
        assert batch.audio.dtype == batch.visual.dtype == torch.float16
        assert moved.audio.dtype == moved.visual.dtype == torch.float32
        assert torch.equal(moved.visual, batch.visual.float())
        assert moved.words.dtype == torch.int64 and moved.presence.dtype == torch.bool
