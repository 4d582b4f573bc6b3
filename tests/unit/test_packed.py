"""The packed store: the same batches as from files, resume after a kill, damage, and the
command."""

import hashlib
import json
import multiprocessing
import os
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from commands import command, shorten, write_dataset
from hypothesis import given
from hypothesis import strategies as st

from dataset import make_loader
from dataset.lock import alone_in
from dataset.music_avqa import MusicAVQA
from dataset.packed import PackedStore, verify
from dataset.packing import Packing
from dataset.store import FeatureStore
from dataset.types import DataError
from engine.errors import run_guarded
from scripts import pack_features

FOLDERS = {"audio": ("vggish", 1), "visual": ("res18_14x14", 3)}


@pytest.fixture
def root(tmp_path):
    return write_dataset(tmp_path / "data")


def packing(root, name, dtype="float16", stride=2):
    folder, dimensions = FOLDERS[name]
    return Packing(FeatureStore(root / "feats" / folder, stride, dimensions), root / "feats/packed", name, dtype)


def pack(root, dtype="float16"):
    for name in FOLDERS:
        assert len(list(packing(root, name, dtype).run())) == 24


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


def test_a_killed_packing_continues_to_the_same_array(root):
    pack(root)
    whole = (root / "feats/packed/visual.npy").read_bytes()
    (root / "feats/packed/visual.npy").unlink()
    killed = packing(root, "visual")
    for done, _ in enumerate(killed.run(), start=1):
        if done == 7:
            break
    with open(killed.journal, "a") as journal:
        journal.write('{"video": "torn')
    again = packing(root, "visual")
    read = []
    again.source.read_segments = lambda video: read.append(video) or FeatureStore.read_segments(again.source, video)
    assert len(list(again.run())) == 24 and len(read) == 24 - 7
    assert (root / "feats/packed/visual.npy").read_bytes() == whole
    left = {p.name for p in (root / "feats/packed").iterdir()}
    assert left == {"audio.json", "audio.npy", "visual.json", "visual.npy"}


def begun(root, videos=7):
    """An audio packing that was interrupted after some videos."""
    killed = packing(root, "audio")
    for done, _ in enumerate(killed.run(), start=1):
        if done == videos:
            break
    return killed


def change(path, content):
    path.write_bytes(content(path.read_bytes()))


@pytest.mark.parametrize("line", [
    b"\xff\xfe", b"[" * 100_000, b"[]", b"7", b'{"video": "test0000"}', b'{"video": 3, "sha256": "0"}', b"\0" * 40,
])
def test_a_damaged_journal_starts_the_array_again(root, line, capsys):
    pack(root)
    whole = (root / "feats/packed/audio.npy").read_bytes()
    change(begun(root).journal, lambda content: content + line + b"\n")
    assert len(list(packing(root, "audio").run())) == 24
    assert "audio.journal of an interrupted run is damaged; this array is started again" in capsys.readouterr().out
    assert (root / "feats/packed/audio.npy").read_bytes() == whole


@pytest.mark.parametrize("damage", [lambda c: c[:-50], lambda c: c[:20], lambda c: b"", lambda c: b"\0" + c[1:]])
def test_a_short_or_damaged_array_is_started_again(root, damage, capsys):
    pack(root)
    whole = (root / "feats/packed/audio.npy").read_bytes()
    change(begun(root).temporary, damage)
    assert len(list(packing(root, "audio").run())) == 24
    assert "audio.npy.partial of an interrupted run is cut off or damaged; this array is" in capsys.readouterr().out
    assert (root / "feats/packed/audio.npy").read_bytes() == whole


def test_rows_that_the_disk_lost_are_packed_again(root, capsys):
    pack(root)
    whole = (root / "feats/packed/audio.npy").read_bytes()
    killed = begun(root)
    lost = len(killed.header) + 3 * killed.bytes_per_video
    change(killed.temporary, lambda c: c[:lost] + bytes(killed.bytes_per_video) + c[lost + killed.bytes_per_video:])
    list(packing(root, "audio").run())
    assert "the rows of test0003 are not those of the journal" in capsys.readouterr().out
    assert (root / "feats/packed/audio.npy").read_bytes() == whole


@pytest.mark.parametrize("seconds", [0.0, 1e9])
def test_the_journal_names_only_rows_the_disk_has(root, monkeypatch, seconds):
    """Every line must fit the array as it was at the last time it was handed to the disk."""
    monkeypatch.setattr("dataset.packing.SYNC_SECONDS", seconds)
    half, on_disk = packing(root, "audio"), {}
    monkeypatch.setattr(os, "fsync", lambda number: on_disk.update(
        {os.readlink(f"/proc/self/fd/{number}"): half.temporary.read_bytes()}))
    for packed, _ in enumerate(half.run(), start=1):
        lines = [json.loads(line) for line in half.journal.read_text().splitlines()[1:]]
        assert len(lines) == (packed if seconds == 0 else 0)
        for row, line in enumerate(lines):
            at = len(half.header) + row * half.bytes_per_video
            data = on_disk[str(half.temporary)][at:at + half.bytes_per_video]
            assert hashlib.sha256(data).hexdigest() == line["sha256"]
        if packed == 7:
            break
    assert len(half.journal.read_text().splitlines()) == 1 + 7


def test_of_two_packings_at_once_the_second_stops_in_one_line(root, monkeypatch, capsys):
    monkeypatch.setattr("sys.argv", ["pack_features.py", str(root), "--stride", "2"])
    write, met = Packing.pack_video, []

    def meets_another(self, array, offset, video):
        if video == "test0005" and self.name not in met:
            met.append(self.name)
            with pytest.raises(SystemExit) as stop:
                run_guarded(pack_features.main)
            assert stop.value.code == 2
        return write(self, array, offset, video)

    monkeypatch.setattr(Packing, "pack_video", meets_another)
    pack_features.main()
    assert met == ["audio", "visual"] and capsys.readouterr().err.count("error: another process is packing into") == 2
    assert all(good for name in FOLDERS for _, good in verify(root / "feats/packed", name))
    pack_features.main()


def hold(folder, ready):
    with alone_in(folder, "packing into"):
        ready.set()
        multiprocessing.Event().wait()


def test_a_lock_is_gone_with_its_process(tmp_path):
    context = multiprocessing.get_context("fork")
    ready = context.Event()
    process = context.Process(target=hold, args=(tmp_path, ready))
    process.start()
    assert ready.wait(60)
    with pytest.raises(DataError, match="another process is packing into"), alone_in(tmp_path, "packing into"):
        pass
    process.kill()
    process.join()
    with alone_in(tmp_path, "packing into"):
        assert process.exitcode == -9


def test_other_settings_start_afresh(root):
    next(packing(root, "audio").run())
    assert len(list(packing(root, "audio", "float32").run())) == 24
    assert np.load(root / "feats/packed/audio.npy").dtype == np.float32


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


def test_a_disk_too_small_is_refused(root, monkeypatch, capsys):
    """Although a killed run left a file of full size and few blocks."""
    for path in (root / "feats/res18_14x14").glob("*.npy"):
        np.save(path, np.ones((6, 4096, 2, 2), np.float32))
    killed = packing(root, "visual")
    next(killed.run())
    assert killed.temporary.stat().st_size > 2e6 > killed.temporary.stat().st_blocks * 512
    monkeypatch.setattr(pack_features.shutil, "disk_usage", lambda _: SimpleNamespace(free=1_000_000))
    monkeypatch.setattr("sys.argv", ["pack_features.py", str(root), "--stride", "2"])
    with pytest.raises(SystemExit) as stop:
        run_guarded(pack_features.main)
    assert stop.value.code == 2 and "0.00 GB free" in capsys.readouterr().err
    assert not (root / "feats/packed/audio.npy").exists()


def test_killed_between_the_two_renames_there_is_no_store(root, monkeypatch):
    pack(root)
    monkeypatch.setattr("dataset.packing.write_json", lambda *_: (_ for _ in ()).throw(KeyboardInterrupt))
    with pytest.raises(KeyboardInterrupt):
        list(packing(root, "audio", "float32").run())
    with pytest.raises(DataError, match="audio.json does not exist"):
        PackedStore(root / "feats/packed", "audio", 2)


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
