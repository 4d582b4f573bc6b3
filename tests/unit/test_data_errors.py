"""Damaged input ends in one clear DataError: any record, any header, any worker process."""

import numpy as np
import pytest
import torch
from commands import shorten, write_dataset
from hypothesis import given, settings
from hypothesis import strategies as st

from dataset import SCENARIOS, make_loader
from dataset.music_avqa import MusicAVQA
from dataset.store import FeatureStore
from dataset.types import Batch, DataError
from scripts import check_dataset


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("store")
    np.save(folder / "a.npy", np.ones((4, 2), np.float32))
    return folder


@settings(max_examples=300, deadline=None)
@given(st.lists(st.tuples(st.integers(0, 127), st.integers(0, 255)), max_size=4))
def test_any_damage_to_a_header_is_an_error_or_harmless(folder, changes):
    content = bytearray((folder / "a.npy").read_bytes())
    for position, value in changes:
        content[position] = value
    (folder / "b.npy").write_bytes(content)
    try:
        values = FeatureStore(folder, stride=2, dimensions=1).read_segments("b")
    except DataError as error:
        assert "b.npy" in str(error)
    else:
        assert values.shape == (2, 2)


@given(st.lists(st.floats(width=32), min_size=8, max_size=8))
def test_only_finite_features_pass_however_large(folder, values):
    array = np.array(values, np.float32).reshape(4, 2)
    np.save(folder / "c.npy", array)
    store = FeatureStore(folder, stride=1, dimensions=1)
    if np.isfinite(array).all():
        np.testing.assert_array_equal(store.read_segments("c"), array)
    else:
        with pytest.raises(DataError, match="c.npy"):
            store.read_segments("c")


@pytest.mark.parametrize("workers", [0, 2])
def test_a_worker_reports_an_error_as_plainly_as_no_worker(tmp_path, workers):
    root = write_dataset(tmp_path / "data")
    path = root / "feats/vggish/train0003.npy"
    path.write_bytes(path.read_bytes()[:100])
    data = MusicAVQA(root=str(root), stride=2)
    loader = make_loader(data.question_set("train", data.vocabulary()), batch_size=4, shuffle=True, workers=workers)
    with pytest.raises(DataError) as error:
        list(loader)
    assert str(error.value).startswith("feature file") and "Traceback" not in str(error.value)


def test_missing_files_fail_only_where_they_are_needed(tmp_path):
    """They fail before the first batch; skip_missing leaves their questions out."""
    root = write_dataset(tmp_path / "data")
    (root / "feats/vggish/test0003.npy").unlink()
    data = MusicAVQA(root=str(root), stride=2)
    with pytest.raises(DataError, match="test0003.npy.*1 of 8 videos of test"):
        data.question_set("test", data.vocabulary())
    assert len(data.question_set("test", data.vocabulary(), SCENARIOS["audio_missing"])) == 24
    assert len(MusicAVQA(root=str(root), stride=2, skip_missing=True).questions("test")) == 21


def test_a_loader_pins_what_a_gpu_will_fetch(monkeypatch, tmp_path):
    data = MusicAVQA(root=str(write_dataset(tmp_path / "data")), stride=2)
    pinned = []
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.Tensor, "pin_memory", lambda tensor: pinned.append(tensor) or tensor + 0)
    batch = next(iter(make_loader(data.question_set("val", data.vocabulary()), batch_size=2, shuffle=False)))
    assert any(t.shape == batch.visual.shape for t in pinned) and isinstance(batch, Batch)


def test_the_check_reports_wasted_rows_and_short_files(tmp_path, monkeypatch, capsys):
    root = write_dataset(tmp_path / "data")
    shorten(root, {"train0001": (2, 6), "test0003": (3, 6)})
    monkeypatch.setattr("sys.argv", ["check_dataset.py", str(root)])
    check_dataset.main()
    output = "".join(capsys.readouterr())
    assert "dataset.stride=6 uses 1 as segments, fewer than 4; dataset.stride=1 uses 6" in output
    assert "everything is there" in output and "videos have fewer than" not in output
    monkeypatch.setattr("sys.argv", ["check_dataset.py", str(root), "dataset.stride=1"])
    check_dataset.main()
    output = capsys.readouterr().out
    assert "warning" not in output and "everything is there" in output
    assert "audio: 2 of 24 videos have fewer than 6 segments (down to 2); what they lack is absent" in output
