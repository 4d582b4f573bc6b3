"""What a killed process left goes; pipes and devices are refused wherever a file is read."""

import json
import multiprocessing
import os
import signal

import numpy as np
import pytest
import torch
from commands import write_dataset
from torch import nn

from dataset import SCENARIOS, build_dataset
from dataset.extract.clip import ClipWords
from dataset.extract.media import MediaError, read_clip
from dataset.extract.pipeline import Settings, extract, find_videos
from dataset.extract.weights import load_weights
from dataset.files import (
    MACHINE,
    is_special,
    refuse_special,
    remove_leftovers,
    write_json,
    write_jsonl,
    write_text,
    write_whole,
)
from dataset.music_avqa import MusicAVQA
from dataset.packed import PackedStore
from dataset.packing import Packing
from dataset.question_features import QuestionFeatures
from dataset.store import FeatureStore
from dataset.types import DataError
from scripts import pack_features


class Level:
    """An extractor that never gets a clip."""

    folder, shape = "level", (1,)


def die(path):
    path.write_bytes(b"half")
    os.kill(os.getpid(), signal.SIGKILL)


def killed_while_writing(path):
    """Let a process die in the middle of writing `path`."""
    path.parent.mkdir(parents=True, exist_ok=True)
    process = multiprocessing.get_context("fork").Process(target=write_whole, args=(path, die))
    process.start()
    process.join()
    assert not path.exists() and len(list(path.parent.glob(f".{path.name[:50]}.*.tmp"))) == 1


def test_only_leftovers_of_dead_processes_go(tmp_path):
    """Of dead processes of this machine; all other files stay."""
    killed_while_writing(tmp_path / "results.json")
    killed_while_writing(tmp_path / ("long" * 60))
    dead = [int(p.name.split(".")[-2]) for p in tmp_path.iterdir()]
    folder = tmp_path / f".benchmark.{MACHINE}.{dead[0]}.tmp"
    (folder / "feats").mkdir(parents=True)
    kept = [f".a.{MACHINE}.{os.getppid()}.tmp", f".a.00000000.{dead[0]}.tmp", ".a.tmp", f"a.{MACHINE}.{dead[0]}.tmp",
            "a"]
    for name in kept:
        (tmp_path / name).touch()
    remove_leftovers(tmp_path)
    assert sorted(p.name for p in tmp_path.iterdir()) == sorted(kept)


def test_the_next_packing_extraction_and_generation_tidy_up(tmp_path, monkeypatch):
    root = write_dataset(tmp_path / "data")
    (tmp_path / "a.mp4").touch()
    extracted, packed = tmp_path / "out", root / "feats/packed"
    for path in (packed / "audio.json", extracted / "presence.json", extracted / "level/a.npy",
                 tmp_path / "synthetic/x"):
        killed_while_writing(path)
    (left,) = (tmp_path / "synthetic").iterdir()
    left.rename(tmp_path / left.name.replace("x", "synthetic"))
    monkeypatch.setattr("sys.argv", ["pack_features.py", str(root)])
    pack_features.main()
    extract(find_videos(tmp_path), extracted, [Level], Settings(seconds=1))
    sizes = {f"{split}_videos": 2 for split in ("train", "val", "test")}
    build_dataset({"name": "synthetic", "root": str(tmp_path / "synthetic"), "channels": 8, **sizes})
    assert not list(tmp_path.rglob("*.tmp"))


def test_a_pipe_and_a_device_are_special_and_nothing_else(tmp_path):
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "file").touch()
    (tmp_path / "link").symlink_to(tmp_path / "file")
    (tmp_path / "device").symlink_to(os.devnull)
    special = {name for name in ("pipe", "file", "link", "device", ".", "none") if is_special(tmp_path / name)}
    assert special == {"pipe", "device"}
    with pytest.raises(DataError, match="pipe is a pipe, a socket or a device; give an ordinary file"):
        refuse_special(tmp_path / "pipe")


def replace_by_device(path):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.unlink(missing_ok=True)
    path.symlink_to(os.devnull)
    return path


def extract_nothing(folder):
    extract([], folder, [], Settings(seconds=1))


def pack_audio(root):
    list(Packing(FeatureStore(root / "feats/vggish", 1, 1), root / "feats/packed", "audio").run())


@pytest.mark.parametrize("name, read", [
    ("feats/vggish/train0003.npy", lambda root: FeatureStore(root / "feats/vggish", 1, 1).read_segments("train0003")),
    ("feats/packed/audio.npy", lambda root: PackedStore(root / "feats/packed", "audio", 1)),
    ("feats/packed/audio.json", lambda root: PackedStore(root / "feats/packed", "audio", 1)),
    ("feats/presence.json", lambda root: MusicAVQA(root=str(root))),
    ("json_update/avqa-train.json", lambda root: MusicAVQA(root=str(root)).questions("train")),
    ("feats/clip_words.npz", lambda root: QuestionFeatures(root / "feats/clip_words.npz")),
    ("w.pth", lambda root: load_weights(nn.Linear(1, 1), root / "w.pth", "")),
    ("clip/config.json", lambda root: ClipWords(root / "clip", torch.device("cpu"))),
    ("out/manifest.jsonl", lambda root: extract_nothing(root / "out")),
    ("out/extraction.json", lambda root: extract_nothing(root / "out")),
    ("out/.lock", lambda root: extract_nothing(root / "out")),
    ("feats/packed/.audio.npy.partial", lambda root: pack_audio(root)),
    ("feats/packed/.audio.journal", lambda root: pack_audio(root)),
])
def test_no_device_is_read_as_a_file(tmp_path, name, read):
    root = write_dataset(tmp_path / "data", videos=4)
    pack_audio(root)
    path = replace_by_device(root / name)
    with pytest.raises(DataError, match=f"{path} is a pipe, a socket or a device"):
        read(root)


def test_a_pipe_among_videos_is_one_line_and_so_is_a_broken_link(tmp_path):
    os.mkfifo(tmp_path / "pipe.mp4")
    (tmp_path / "link.mp4").symlink_to(tmp_path / "nowhere")
    with pytest.raises(MediaError, match="a pipe, a socket or a device, no ordinary file"):
        read_clip(tmp_path / "pipe.mp4", [0])
    summary = extract(find_videos(tmp_path), tmp_path / "out", [Level], Settings(seconds=1))
    assert "no ordinary file" in summary.failed["pipe"] and "FileNotFound" in summary.failed["link"]


def test_an_oracle_that_is_a_device_is_refused(tmp_path):
    sizes = {f"{split}_videos": 2 for split in ("train", "val", "test")}
    data = build_dataset({"name": "synthetic", "root": str(tmp_path / "data"), "channels": 8, **sizes})
    path = replace_by_device(tmp_path / "data/oracle-test-complete.json")
    with pytest.raises(DataError, match=f"{path} is a pipe"):
        data.oracle("test", SCENARIOS["complete"])


def test_a_file_is_whole_or_as_before(tmp_path):
    write_text(tmp_path / "a.json", json.dumps([1]))

    def fail(path):
        path.write_text("half")
        raise OSError(28, "No space left on device")

    with pytest.raises(OSError, match="No space") as raised:
        write_whole(tmp_path / "a.json", fail)
    assert raised.value.filename == str(tmp_path / "a.json")
    assert [p.name for p in tmp_path.iterdir()] == ["a.json"] and (tmp_path / "a.json").read_text() == "[1]"
    write_whole(tmp_path / "b.npy", lambda path: path.write_bytes(np.ones(2).tobytes()))
    assert np.frombuffer((tmp_path / "b.npy").read_bytes()).tolist() == [1, 1]


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_only_valid_json_is_written(tmp_path, value):
    for write, content in ((write_json, {"a": [value]}), (write_jsonl, [{"a": value}])):
        with pytest.raises(ValueError, match="JSON"):
            write(tmp_path / "a", content)
    assert list(tmp_path.iterdir()) == []
