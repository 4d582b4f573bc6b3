"""Only what is used is read, at the real shapes; damage is told in one line."""

import numpy as np
import pytest

from dataset.store import FeatureStore
from dataset.types import DataError


def test_reads_every_sixth_row_of_a_real_sized_file_and_nothing_else(tmp_path):
    values = np.random.default_rng(0).random((60, 512, 14, 14), dtype=np.float32)
    np.save(tmp_path / "a.npy", values)
    store = FeatureStore(tmp_path, stride=6, dimensions=3)
    assert (store.segments, store.shape) == (10, (512, 14, 14))
    segments = store.read_segments("a")
    np.testing.assert_array_equal(segments, values[::6])
    assert segments.nbytes <= 8.1e6 and segments.base is None          # a copy of ten rows, not a view of the file
    values[1] = np.nan                                                 # a row that is not used may be anything
    np.save(tmp_path / "a.npy", values)
    assert np.isfinite(FeatureStore(tmp_path, 6, 3).read_segments("a")).all()


def test_rows_that_do_not_divide_by_the_stride(tmp_path):
    np.save(tmp_path / "a.npy", np.arange(14, dtype=np.float16).reshape(7, 2))
    store = FeatureStore(tmp_path, stride=3, dimensions=1)
    assert store.segments == 3
    np.testing.assert_array_equal(store.read_segments("a")[:, 0], [0, 6, 12])


@pytest.mark.parametrize("content", [
    b"", b"not an array", np.lib.format.MAGIC_PREFIX + b"\x01", "objects", "integers", "shape", "dimensions", "nan",
])
def test_damage_is_named(tmp_path, content):
    np.save(tmp_path / "a.npy", np.ones((4, 2), np.float32))
    path = tmp_path / "b.npy"
    made = {"objects": np.array([{}, {}], dtype=object), "integers": np.ones((4, 2), int),
            "shape": np.ones((4, 3), np.float32), "dimensions": np.ones((4, 2, 1), np.float32),
            "nan": np.array([[1, np.nan]] * 4, np.float32)}
    if isinstance(content, bytes):
        path.write_bytes(content)
    else:
        np.save(path, made[content], allow_pickle=content == "objects")
    store = FeatureStore(tmp_path, stride=1, dimensions=1)
    with pytest.raises(DataError, match="b.npy"):
        store.read_segments("b")


@pytest.mark.parametrize("length", range(0, 160, 8))
def test_any_truncation_is_an_error_not_a_wrong_array(tmp_path, length):
    np.save(tmp_path / "a.npy", np.ones((4, 2), np.float32))
    (tmp_path / "b.npy").write_bytes((tmp_path / "a.npy").read_bytes()[:length])
    store = FeatureStore(tmp_path, stride=1, dimensions=1)
    with pytest.raises(DataError, match="b.npy"):
        store.read_segments("b")


def test_folder_missing_or_empty(tmp_path):
    with pytest.raises(DataError, match="nowhere"):
        FeatureStore(tmp_path / "nowhere", 1, 1)
    with pytest.raises(DataError, match="no .npy"):
        FeatureStore(tmp_path, 1, 1)


def test_tokens_of_a_frame_become_a_map_of_one_column(tmp_path):
    values = np.random.default_rng(0).random((4, 5, 3), dtype=np.float32)
    np.save(tmp_path / "a.npy", values)
    store = FeatureStore(tmp_path, stride=2, dimensions=3, layout="cls_first")
    assert (store.segments, store.shape) == (2, (3, 5, 1))
    np.testing.assert_array_equal(store.read_segments("a")[..., 0].swapaxes(1, 2), values[::2])
    np.testing.assert_array_equal(store.read("a", 3)[:, :, 0], values[3].T)
    np.save(tmp_path / "b.npy", values[:, :4])
    with pytest.raises(DataError, match=r"b.npy has shape \[4, 4, 3\]; expected \[4, 5, 3\]"):
        store.read_segments("b")


@pytest.mark.parametrize("shape, layout, message", [
    ((4, 5, 3), "map", "expected seconds x channels x height x width .dataset.visual_layout=map"),
    ((4, 3, 2, 2), "cls_first", "expected seconds x tokens x channels, two tokens or more"),
    ((4, 1, 3), "cls_first", "two tokens or more"),
])
def test_files_of_another_layout_are_named(tmp_path, shape, layout, message):
    np.save(tmp_path / "a.npy", np.ones(shape, np.float32))
    with pytest.raises(DataError, match=message):
        FeatureStore(tmp_path, 1, 3, layout=layout)
