"""Only what is used is read, at the real shapes; damage is one line."""

import json

import numpy as np
import pytest
from commands import shorten, write_dataset
from hypothesis import given
from hypothesis import strategies as st

from dataset.music_avqa import MusicAVQA
from dataset.store import FeatureStore, note_on_segments
from dataset.types import DataError


def test_only_every_sixth_row_of_a_file_is_read(tmp_path):
    """At the real shapes."""
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


def test_shorter_files_end_in_zeros(tmp_path):
    """The longest file has the number of rows."""
    for name, rows in (("a", 3), ("b", 7), ("c", 1), ("d", 7), ("e", 6)):
        np.save(tmp_path / f"{name}.npy", np.arange(1, 1 + rows * 2, dtype=np.float32).reshape(rows, 2))
    (tmp_path / "f.npy").write_bytes(b"damaged")
    store = FeatureStore(tmp_path, stride=2, dimensions=1)
    assert (store.rows, store.segments) == (7, 4)
    assert [store.segments_of(name) for name in "abcde"] == [2, 4, 1, 4, 3]
    np.testing.assert_array_equal(store.read_segments("b"), [[1, 2], [5, 6], [9, 10], [13, 14]])
    np.testing.assert_array_equal(store.read_segments("a"), [[1, 2], [5, 6], [0, 0], [0, 0]])
    assert store.read_segments("c").dtype == np.float32
    np.save(tmp_path / "e.npy", np.ones((8, 2), np.float32))              # grown since the folder was listed
    np.save(tmp_path / "f.npy", np.ones((0, 2), np.float32))
    for name in "ef":
        with pytest.raises(DataError, match=f"{name}.npy"):
            store.read_segments(name)


def test_shorter_files_give_what_presence_json_would(tmp_path):
    """The batches of whole files whose last rows presence.json calls absent, negatives too."""
    rows = {"train0001": (1, 6), "train0002": (5, 3), "train0007": (6, 1)}
    roots = [write_dataset(tmp_path / name) for name in ("cut", "recorded")]
    shorten(roots[0], rows)
    lacking = {video: {"audio": audio, "visual": visual} for video, (audio, visual) in rows.items()}
    (roots[1] / "feats/presence.json").write_text(json.dumps(lacking))
    cut, whole = (MusicAVQA(root=str(root), stride=2) for root in roots)
    sets = [data.question_set("train", whole.vocabulary(), negatives="other_video") for data in (cut, whole)]
    absent = 0
    for i in range(len(sets[0])):
        ours, theirs = sets[0][i], sets[1][i]
        assert all(bool((getattr(ours, n) == getattr(theirs, n)).all()) for n in ("audio", "visual", "presence",
                                                                                  "negative_visual"))
        absent += int((~ours.presence).sum())
    assert absent == 3 * (2 + 1 + 2)          # three questions on each video; of 1, 5, 3, 6, 1 rows 2, 0, 1, 0, 2 lack


@pytest.mark.parametrize("rows, stride, problem", [
    (6, 6, "uses 1 as segments, fewer than 4; dataset.stride=1 uses 6"),
    (60, 20, "uses 3 as segments, fewer than 4; dataset.stride=6 uses 10"),
    (7, 3, "uses 3 as segments, fewer than 4, the last one of 1 rows and the others of 3; dataset.stride=1 uses 7"),
    (62, 6, "uses 11 as segments, the last one of 2 rows and the others of 6"),
    (3, 1, "uses 3 as segments, fewer than 4"), (3, 6, "uses 1 as segments, fewer than 4; dataset.stride=1 uses 3"),
    (60, 6, None), (10, 1, None), (4, 1, None), (60, 15, None),
])
def test_a_stride_that_wastes_rows_brings_a_better_one(rows, stride, problem):
    note = note_on_segments(rows, stride, "dataset.stride=")
    assert note == (problem and f"warning: of {rows} rows per video dataset.stride={stride} {problem}")


@given(st.integers(1, 400), st.integers(1, 500))
def test_a_suggested_stride_leaves_enough_segments(rows, stride):
    note = note_on_segments(rows, stride, "=")
    if note and ";" in note:
        better = int(note.rpartition("=")[2].split()[0])
        assert better != stride and (-(-rows // better) >= 4 or better == 1)
