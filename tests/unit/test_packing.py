"""Packing: resumed after a kill, started again after damage, one at a time."""

import hashlib
import json
import multiprocessing
import os
from types import SimpleNamespace

import numpy as np
import pytest
from commands import write_dataset
from unit.toy_packing import FOLDERS, begun, pack, packing

from dataset.lock import alone_in
from dataset.packed import PackedStore, verify
from dataset.packing import Packing
from dataset.store import FeatureStore
from dataset.types import DataError
from engine.errors import run_guarded
from scripts import pack_features


@pytest.fixture
def root(tmp_path):
    return write_dataset(tmp_path / "data")


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
