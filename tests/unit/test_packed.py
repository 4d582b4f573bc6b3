"""The packed store: the same batches as from files, damage, and the command."""

import json

import numpy as np
import pytest
import torch
from commands import command, shorten, write_dataset
from hypothesis import given
from hypothesis import strategies as st
from unit.toy_packing import FOLDERS, begun, pack, packing

from dataset import make_loader
from dataset.music_avqa import MusicAVQA
from dataset.packed import PackedStore, verify
from dataset.store import FeatureStore
from dataset.types import DataError


@pytest.fixture
def root(tmp_path):
    return write_dataset(tmp_path / "data")


def first_batch(root, **options):
    data = MusicAVQA(root=str(root), stride=2, **options)
    questions = data.question_set("train", data.vocabulary())
    return next(iter(make_loader(questions, batch_size=24, shuffle=True, seed=3))).to("cpu"), data


@pytest.mark.parametrize("dtype, tolerance", [("float32", 0.0), ("float16", 2 ** -11)])
def test_packed_batches_are_those_of_the_files(root, dtype, tolerance):
    pack(root, dtype)
    (files, data), (packed, other) = first_batch(root), first_batch(root, features="packed")
    assert other.spec(other.vocabulary()) == data.spec(data.vocabulary())
    for name, value in vars(files).items():
        if value is not None and value.is_floating_point():
            torch.testing.assert_close(getattr(packed, name), value, rtol=tolerance, atol=1e-7 if tolerance else 0)
        elif value is not None:
            assert torch.equal(getattr(packed, name), value)
    assert np.load(root / "feats/packed/visual.npy", mmap_mode="r").dtype == dtype
    assert all(good for name in FOLDERS for _, good in verify(root / "feats/packed", name))


def test_what_cannot_be_read_is_left_out_with_its_reason(root):
    (root / "feats/vggish/train0003.npy").write_bytes(b"damaged")
    values = np.load(root / "feats/vggish/train0004.npy")
    np.save(root / "feats/vggish/train0004.npy", values * 1e6)
    half = packing(root, "audio")
    assert len(list(half.run())) == 22
    assert "truncated" in half.failed["train0003"] and "--dtype float32" in half.failed["train0004"]
    store = PackedStore(half.folder, "audio", 2)
    assert not store.has("train0003") and store.has("train0005")
    source = np.load(root / "feats/vggish/train0005.npy")[::2]
    np.testing.assert_allclose(store.read_segments("train0005"), source, rtol=1e-3)
    with pytest.raises(DataError, match="do not hold video train0003"):
        store.read_segments("train0003")


@pytest.mark.parametrize("damage, message", [
    (lambda f: (f / "audio.npy").write_bytes((f / "audio.npy").read_bytes()[:-50]), "cut off"),
    (lambda f: (f / "audio.npy").unlink(), "missing, cut off"),
    (lambda f: (f / "audio.json").unlink(), "pack_features.py"),
    (lambda f: (f / "audio.json").write_text("{"), "damaged"),
    (lambda f: (f / "audio.json").write_text("[]"), "damaged"),
    (lambda f: np.save(f / "audio.npy", np.zeros((24, 3, 9), np.float16)), "index has"),
])
def test_a_damaged_store_is_one_clear_error(root, damage, message):
    pack(root)
    damage(root / "feats/packed")
    with pytest.raises(DataError, match=message):
        PackedStore(root / "feats/packed", "audio", 2)


def test_another_stride_is_refused(root):
    pack(root)
    with pytest.raises(DataError, match="packed with stride 2, dataset.stride=3"):
        PackedStore(root / "feats/packed", "audio", 3)


@pytest.mark.parametrize("field, change", [
    ("rows", {"test0000": 24}), ("rows", {"test0000": -1}), ("rows", {"test0000": 1}), ("rows", {"test0000": 1.5}),
    ("rows", {"other": 0}), ("sha256", {"other": "0"}), ("sha256", None), ("rows", None), ("stride", 3),
    ("stride", True),
    ("shape", [24, 3, 5, 1.0]), ("present", {"other": 1}), ("present", {"test0000": 3}), ("present", {"test0000": 0}),
    ("dtype", "int16"), ("source_rows", 9), ("format", 2),
])
def test_an_index_that_does_not_fit_is_one_clear_error(root, field, change):
    """And never the rows of another video."""
    pack(root)
    path = root / "feats/packed/audio.json"
    index = json.loads(path.read_text())
    index[field] = index[field] | change if isinstance(change, dict) else change
    path.write_text(json.dumps(index))
    with pytest.raises(DataError, match="audio.json is damaged .*; pack again"):
        PackedStore(root / "feats/packed", "audio", 2)
    with pytest.raises(DataError, match="audio.json is damaged"):
        list(verify(root / "feats/packed", "audio"))


def test_sound_and_picture_of_different_lengths_are_refused(root):
    for path in (root / "feats/vggish").glob("*.npy"):
        np.save(path, np.load(path)[:4])
    pack(root)
    with pytest.raises(DataError, match="2 rows per video of sound"):
        first_batch(root, features="packed")
    done = command("scripts/pack_features.py", root)
    assert done.returncode == 2 and "4 rows per video of sound" in done.stderr


@given(index=st.recursive(st.none() | st.booleans() | st.integers() | st.text(max_size=5),
                          lambda v: st.lists(v, max_size=3) | st.dictionaries(
                              st.sampled_from(["format", "rows", "shape", "dtype", "stride"]), v, max_size=5),
                          max_leaves=8))
def test_any_index_is_an_error_or_a_store(tmp_path_factory, index):
    folder = tmp_path_factory.getbasetemp()
    (folder / "fuzz.json").write_text(json.dumps(index))
    with pytest.raises(DataError):
        PackedStore(folder, "fuzz", 1)


def test_recorded_absence_and_negatives_hold_in_a_packed_store(root):
    (root / "feats/presence.json").write_text(json.dumps({"train0002": {"audio": 3, "visual": 3}}))
    pack(root)
    data = MusicAVQA(root=str(root), stride=2, features="packed")
    questions = data.question_set("train", data.vocabulary(), negatives="other_video")
    item = next(questions[i] for i, q in enumerate(questions.questions) if q.video_id == "train0002")
    assert item.presence[0].tolist() == [[True, True], [True, True], [False, False]]
    assert item.negative_visual.shape == item.visual.shape


def test_shorter_files_are_packed_with_what_they_lack_absent(root):
    shorten(root, {"train0001": (1, 6), "train0002": (5, 3), "test0000": (2, 2)})
    begun(root, 20)                                # interrupted after the short ones
    pack(root)
    (files, data), (packed, other) = first_batch(root), first_batch(root, features="packed")
    assert torch.equal(files.presence, packed.presence) and not bool(files.presence.all())
    torch.testing.assert_close(packed.audio, files.audio, rtol=2 ** -11, atol=1e-7)
    torch.testing.assert_close(packed.visual, files.visual, rtol=2 ** -11, atol=1e-7)
    assert other.spec(other.vocabulary()) == data.spec(data.vocabulary())
    index = json.loads((root / "feats/packed/audio.json").read_text())
    assert index["present"] == {"train0001": 1, "test0000": 1}         # 5 rows are 3 segments, all there are


def test_a_damaged_first_file_costs_that_video_alone(root):
    (root / "feats/vggish/test0000.npy").write_bytes(b"damaged")
    (root / "feats/vggish/._hidden.npy").write_bytes(b"not ours")
    with pytest.raises(DataError, match="test0000.npy"):
        FeatureStore(root / "feats/vggish", 2, 1)
    done = command("scripts/pack_features.py", root, "--stride", "2")
    assert done.returncode == 0 and "left out: test0000: feature file" in done.stdout and "hidden" not in done.stdout
    store = PackedStore(root / "feats/packed", "audio", 2)
    assert not store.has("test0000") and len(store.row) == 23
    for path in (root / "feats/vggish").glob("*.npy"):
        path.write_bytes(b"damaged")
    done = command("scripts/pack_features.py", root, "--stride", "2")
    assert done.returncode == 2 and "Traceback" not in done.stderr


def test_tokens_are_packed_as_maps_and_the_index_knows(root):
    for path in (root / "feats/res18_14x14").glob("*.npy"):
        np.save(path, np.load(path).reshape(6, 16, 4).swapaxes(1, 2))
    done = command("scripts/pack_features.py", root, "--stride", "2", "--dtype", "float32", "--visual-layout",
                   "cls_first")
    assert done.returncode == 0, done.stderr
    options = {"visual_layout": "cls_first"}
    (files, data), (packed, other) = first_batch(root, **options), first_batch(root, features="packed", **options)
    assert torch.equal(files.visual, packed.visual) and packed.visual.shape[2:] == (16, 4, 1)
    assert other.spec(other.vocabulary()) == data.spec(data.vocabulary())
    assert command("scripts/pack_features.py", root, "--verify").returncode == 0
    with pytest.raises(DataError, match="packed from files of layout cls_first; set dataset.visual_layout=cls_first"):
        first_batch(root, features="packed")


def test_the_command_plans_packs_and_verifies(root):
    done = command("scripts/pack_features.py", root, "--stride", "2", "--dry-run")
    assert done.returncode == 0 and "24 videos" in done.stdout and not (root / "feats/packed").exists()
    assert "of 6 rows per video --stride 2 uses 3 as segments, fewer than 4; --stride 1 uses 6" in done.stdout
    done = command("scripts/pack_features.py", root, "--stride", "2")
    assert done.returncode == 0 and "dataset.features=packed" in done.stdout, done.stderr
    path = root / "feats/packed/audio.npy"
    assert command("scripts/pack_features.py", root, "--verify").returncode == 0
    data = bytearray(path.read_bytes())
    data[-3] ^= 1
    path.write_bytes(data)
    done = command("scripts/pack_features.py", root, "--verify")
    assert done.returncode == 2 and "damaged at 1 videos, first val0007" in done.stderr
    done = command("scripts/pack_features.py", root / "nowhere")
    assert done.returncode == 2 and "Traceback" not in done.stderr and "does not exist" in done.stderr
