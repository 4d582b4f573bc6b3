"""One bad clip among many is one line, whatever it does to the process that meets it."""

import multiprocessing
import os
import signal
import time

import numpy as np
import pytest
from scipy.io import wavfile

from dataset import memory
from dataset.extract import workers
from dataset.extract.media import SAMPLE_RATE, Clip, MediaError, read_clip
from dataset.extract.pipeline import Settings, extract
from dataset.presence import read_recorded
from dataset.types import DataError
from engine.errors import UsageError
from scripts import extract_features, make_example_videos, pack_features

TONE = np.sin(2 * np.pi * 440 * np.arange(2 * SAMPLE_RATE) / SAMPLE_RATE).astype(np.float32)
SILENCE = Clip(np.zeros((0, 224, 224, 3), np.uint8), np.zeros((2, SAMPLE_RATE), np.float32))


class Level:
    """A stand-in extractor: `factor` times the largest sample of every second."""

    folder, modality, shape = "level", "audio", (1,)

    def __init__(self, factor=1.0):
        self.factor = factor

    def __call__(self, clip):
        return np.float32(self.factor) * clip.sound.max(axis=1, keepdims=True)


def write_sound(path, channels):
    """A sound file of `channels` (samples, channels)."""
    with open(path, "wb") as file:
        wavfile.write(file, SAMPLE_RATE, channels)
    return path.stem, path


@pytest.mark.parametrize("channels", [1, 2, 6, 8, 16])
def test_channels_are_averaged_however_many(tmp_path, channels):
    loudness = np.linspace(0.1, 0.9, channels, dtype=np.float32)
    _, path = write_sound(tmp_path / "a.avi", TONE[:, None] * loudness)
    sound = read_clip(path, [0, 1]).sound
    np.testing.assert_allclose(sound.reshape(-1), TONE * loudness.mean(), atol=1e-6)


@pytest.mark.parametrize("sample", [np.nan, np.inf, -np.inf])
def test_a_clip_with_samples_that_are_no_number_is_a_reason(tmp_path, sample):
    spoilt = TONE.copy()
    spoilt[SAMPLE_RATE + 5] = sample
    videos = [write_sound(tmp_path / "bad.avi", spoilt), write_sound(tmp_path / "good.avi", TONE)]
    with pytest.raises(MediaError, match="NaN or infinite"):
        read_clip(videos[0][1], [0, 1])
    assert len(read_clip(videos[0][1], [0]).sound) == 1
    summary = extract(videos, tmp_path / "out", [Level()], Settings(seconds=2))
    assert summary.done == 1 and summary.failed == {"bad": "the sound holds samples that are NaN or infinite"}


@pytest.mark.parametrize("factor, reason", [
    (1e6, "exceed the range of float16; use --dtype float32"), (np.inf, "features hold NaN or infinity"),
])
def test_features_that_cannot_be_stored_cost_their_clip_alone(tmp_path, factor, reason):
    quiet = 0 * TONE
    quiet[[5, SAMPLE_RATE + 5]] = 1e-6
    videos = [write_sound(tmp_path / "loud.avi", TONE), write_sound(tmp_path / "quiet.avi", quiet)]
    summary = extract(videos, tmp_path / "out", [Level(factor)], Settings(seconds=2))
    assert reason in summary.failed["loud"] and summary.done == np.isfinite(factor)
    assert not (tmp_path / "out/level/loud.npy").exists()


def test_whatever_a_network_raises_costs_its_clip_alone(tmp_path):
    class Fails(Level):
        def __call__(self, clip):
            if clip.sound.max() > 0.6:
                raise RuntimeError("shapes\ncannot be multiplied")
            return super().__call__(clip)

    videos = [write_sound(tmp_path / "loud.avi", TONE), write_sound(tmp_path / "quiet.avi", TONE / 2)]
    summary = extract(videos, tmp_path / "out", [Fails()], Settings(seconds=2))
    assert summary.failed == {"loud": "its features cannot be made (RuntimeError: shapes cannot be multiplied)"}
    assert summary.done == 1
    again = extract(videos, tmp_path / "out", [Level()], Settings(seconds=2))
    assert (again.done, again.skipped) == (1, 1)


def test_a_worker_that_dies_costs_its_clip_alone(tmp_path, monkeypatch):
    """The summary names the clip and how the worker ended; the others go on."""
    def read(path, seconds):
        if path.stem in ("3", "4"):
            os.kill(os.getpid(), signal.SIGKILL)
        if path.stem == "6":
            os._exit(7)
        return SILENCE

    monkeypatch.setattr(workers, "read_clip", read)
    videos = [(str(i), tmp_path / f"{i}.mp4") for i in range(12)]
    summary = extract(videos, tmp_path / "out", [Level()], Settings(seconds=2), workers=2)
    assert summary.done == 9 and set(summary.failed) == {"3", "4", "6"}
    assert "signal 9, Killed" in summary.failed["3"] and "exit code 7" in summary.failed["6"]
    assert multiprocessing.active_children() == []


def test_an_extraction_that_stops_takes_its_workers_along(tmp_path, monkeypatch):
    class Stops(Level):
        def __call__(self, clip):
            raise KeyboardInterrupt

    monkeypatch.setattr(workers, "read_clip", lambda path, seconds: SILENCE)
    videos = [(str(i), tmp_path / f"{i}.mp4") for i in range(12)]
    with pytest.raises(KeyboardInterrupt):
        extract(videos, tmp_path / "out", [Stops()], Settings(seconds=2), workers=3)
    assert multiprocessing.active_children() == []


def test_a_killed_extraction_leaves_no_worker(tmp_path, monkeypatch):
    """Each process holds an end of a pipe; it closes with the last of them, before they finish."""
    def read(path, seconds):
        (tmp_path / f"begun{path.stem}").touch()
        os.write(ours, b"x")
        time.sleep(30)
        (tmp_path / "finished").touch()
        return SILENCE

    monkeypatch.setattr(workers, "read_clip", read)
    theirs, ours = os.pipe()
    videos = [(str(i), tmp_path / f"{i}.mp4") for i in range(3)]
    parent = multiprocessing.get_context("fork").Process(target=extract, args=(
        videos, tmp_path / "out", [Level()], Settings(seconds=2), 3))
    parent.start()
    os.close(ours)
    begun = 0
    while begun < 3:
        begun += len(os.read(theirs, 3))
    parent.kill()
    parent.join()
    assert os.read(theirs, 1) == b""
    os.close(theirs)
    assert not (tmp_path / "finished").exists()


def test_two_extractions_into_one_folder_do_not_mix(tmp_path):
    class Meets(Level):
        def __call__(self, clip):
            extract(videos, tmp_path / "out", [Level()], Settings(seconds=2))

    videos = [write_sound(tmp_path / "a.avi", TONE)]
    summary = extract(videos, tmp_path / "out", [Meets()], Settings(seconds=2))
    assert "another process is extracting into" in summary.failed["a"]


@pytest.mark.parametrize("line", [
    b"\xff\xfe", b"[" * 100_000, b"[]", b'{"video": "a", "rows": 3, "files": {}}',
    b'{"video": "a", "rows": {}, "files": []}',
    b'{"video": "a", "rows": {"audio": -1, "visual": 0}, "files": {"level": "0"}}',
    b'{"video": "a", "rows": {"audio": 2, "visual": "0"}, "files": {"level": "0"}}',
])
def test_damaged_lines_of_a_manifest_are_made_again(tmp_path, line):
    videos = [write_sound(tmp_path / f"{name}.avi", TONE) for name in "ab"]
    extract(videos, tmp_path / "out", [Level()], Settings(seconds=2))
    manifest = tmp_path / "out/manifest.jsonl"
    good = manifest.read_bytes().splitlines()
    manifest.write_bytes(line + b"\n" + good[1] + b"\n")
    summary = extract(videos, tmp_path / "out", [Level()], Settings(seconds=2))
    assert (summary.done, summary.skipped) == (1, 1)
    assert sorted(manifest.read_bytes().splitlines()) == sorted(good)
    (tmp_path / "out/level/b.npy").unlink()               # a file that was deleted is made again, too
    assert extract(videos, tmp_path / "out", [Level()], Settings(seconds=2)).done == 1


def free(monkeypatch, gigabytes):
    monkeypatch.setattr(memory, "free_memory", lambda: gigabytes * 1e9)


def test_clips_beyond_the_memory_are_refused(tmp_path, monkeypatch):
    """A day of maps of (512, 14, 14), every second: 86,400 x 100,352 values of 4 and 2 bytes are 52
    GB, and more."""
    class Maps(Level):
        shape = (512, 14, 14)

    videos = [write_sound(tmp_path / "a.avi", TONE)]
    free(monkeypatch, 50)
    with pytest.raises(DataError, match="86400 seconds needs about .* GB of memory, 50.0 GB are free; use fewer --sec"):
        extract(videos, tmp_path / "out", [Maps()], Settings(seconds=86_400))
    assert not (tmp_path / "out").exists()
    free(monkeypatch, 1)
    extract(videos, tmp_path / "out", [Level()], Settings(seconds=60), workers=2)
    assert (tmp_path / "out/level/a.npy").is_file()


@pytest.mark.parametrize("script, options, message", [
    (extract_features, ["a", "b", "--seconds", "1000000000"], "--seconds and --stride must be from 1 to 86400"),
    (extract_features, ["a", "b", "--stride", "1" + "0" * 30], "--seconds and --stride must be from 1 to 86400"),
    (extract_features, ["a", "b", "--workers", "1000000"], "--workers from 0 to 256"),
    (pack_features, ["a", "--stride", "1" + "0" * 30], "--stride must be from 1 to 86400"),
    (make_example_videos, ["a", "--videos", "1000000000"], "--videos must be from 4 to 10000"),
    (make_example_videos, ["a", "--seconds", "1e9"], "--seconds from 1 to 3600"),
    (make_example_videos, ["a", "--seconds", "nan"], "--seconds from 1 to 3600"),
])
def test_absurd_sizes_are_bounded(monkeypatch, tmp_path, script, options, message):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("sys.argv", ["script", *options])
    with pytest.raises(UsageError, match=message):
        script.main()
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("content", [b"{", b"\xff", b"[" * 100_000, b"[1]", b'"text"'])
def test_damaged_settings_are_one_line_once_features_are_there(tmp_path, content):
    out = tmp_path / "out"
    out.mkdir()
    (out / "extraction.json").write_bytes(b"{")           # nothing is lost yet: made again
    extract([write_sound(tmp_path / "a.avi", TONE)], out, [Level()], Settings(seconds=2))
    (out / "extraction.json").write_bytes(content)
    message = "extraction.json is damaged; delete it if|holds features extracted with"
    with pytest.raises(DataError, match=message) as error:
        extract([write_sound(tmp_path / "a.avi", TONE)], out, [Level()], Settings(seconds=2))
    assert len(str(error.value)) < 500 + len(str(out)) * 2


def test_an_extraction_that_stops_leaves_word_of_what_is_absent(tmp_path):
    class Stops(Level):
        def __call__(self, clip):
            if clip.sound.max() > 0.6:
                raise KeyboardInterrupt
            return super().__call__(clip)

    videos = [write_sound(tmp_path / "a.avi", TONE[:SAMPLE_RATE] / 2), write_sound(tmp_path / "b.avi", TONE)]
    with pytest.raises(KeyboardInterrupt):
        extract(videos, tmp_path / "out", [Stops()], Settings(seconds=2))
    assert read_recorded(tmp_path / "out", 0.0).rows == {"a": (1, 0)}
