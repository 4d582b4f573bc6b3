"""Data of one's own: named runs, sound alone, a dry run on random weights, what is too long."""

import json

import numpy as np
import pytest
import torch
from commands import write_dataset
from scipy.io import wavfile

from dataset import build_dataset
from dataset.extract import EXTRACTORS, build_extractor, parse_weights
from dataset.extract.example import Example, write_video
from dataset.extract.media import SAMPLE_RATE, Clip, read_clip, video_seconds
from dataset.extract.pipeline import Settings, extract, find_videos
from dataset.extract.weights import RANDOM
from dataset.extracted import is_dry_run
from dataset.types import DataError
from engine.config import beyond_defaults, compose, run_folder
from engine.errors import UsageError
from engine.restore import note_on_origin
from scripts.extract_features import print_summary

CPU = torch.device("cpu")


def write_wav(path, seconds):
    wave = np.sin(2 * np.pi * 440 * np.arange(round(seconds * SAMPLE_RATE)) / SAMPLE_RATE)
    wavfile.write(path, SAMPLE_RATE, wave.astype(np.float32))


class Means:
    """A stand-in extractor of picture or sound: the mean of every second."""

    def __init__(self, folder, modality, shape):
        self.folder, self.modality, self.shape = folder, modality, shape

    def __call__(self, clip):
        part = clip.sound if self.modality == "audio" else clip.frames
        values = np.float32(part).reshape(len(part), -1).mean(axis=1)
        return np.broadcast_to(values.reshape(-1, *[1] * len(self.shape)), (len(part), *self.shape))


@pytest.mark.parametrize("file", ["own_data_plain", "own_data", "paper_plain", "paper", "plus"])
def test_two_data_sets_of_ones_own_have_two_run_folders(file):
    """And a start of the same label; without a label the names are those of before."""
    config, labelled = (compose(f"configs/{file}.yaml", ["dataset=music_avqa", "dataset.root=x", *more])
                        for more in ([], ["dataset.label=garden"]))
    before, now = str(run_folder(config)), str(run_folder(labelled))
    assert before.startswith("runs/music_avqa-avst-") and now == before.replace("music_avqa", "garden")
    start, named = config["train"]["init"], labelled["train"]["init"]
    assert start == named is None or (start == "runs/music_avqa-avst-plain-s1/best.pt"
                                      and named == "runs/garden-avst-plain-s1/best.pt")
    assert "label" not in beyond_defaults(config)["dataset"]


def test_a_label_is_the_name_of_a_folder():
    for label in ("../up", "a/b", ".hidden", "", "a b", "x" * 62):
        with pytest.raises(UsageError, match="dataset.label"):
            compose(None, ["dataset=music_avqa", f"dataset.label='{label}'"])


def test_a_start_from_another_data_set_is_named():
    state = {"annotations": {"train": "a", "val": "b"}, "config": {"dataset": {"name": "music_avqa", "root": "data/x"}}}
    assert note_on_origin(state, {"train": "a", "val": "c"}, "best.pt") == ""
    assert note_on_origin({"config": {}}, {"train": "a"}, "best.pt") == ""
    note = note_on_origin(state, {"train": "c", "val": "d"}, "best.pt")
    assert note.startswith("warning: train.init=best.pt was trained on another data set") and "data/x" in note


def test_sound_alone_is_read_as_lacking_its_picture(tmp_path):
    """The folder of pictures gives their shape all the same."""
    root = write_dataset(tmp_path / "data", videos=2, seconds=3)
    for folder in ("vggish", "res18_14x14"):
        for path in (root / "feats" / folder).iterdir():
            path.unlink()
    (root / "sounds").mkdir()
    for split in ("train", "val", "test"):
        for video in range(2):
            write_wav(root / "sounds" / f"{split}{video:04d}.wav", 3)
    extractors = [Means("vggish", "audio", (5,)), Means("res18_14x14", "visual", (4, 2, 2))]
    summary = extract(find_videos(root / "sounds"), root / "feats", extractors, Settings(seconds=3))
    assert summary.done == 6 and set(map(tuple, map(dict.items, summary.partly.values()))) == {
        (("audio", 3), ("visual", 0))}
    assert len(list((root / "feats/res18_14x14").glob("*.npy"))) == 1
    again = extract(find_videos(root / "sounds"), root / "feats", extractors, Settings(seconds=3))
    assert (again.done, again.skipped) == (0, 6)
    data = build_dataset({"name": "music_avqa", "root": str(root), "stride": 1})
    for split in ("train", "val", "test"):
        batch = data.question_set(split, data.vocabulary()).batch([0, 1])
        assert batch.presence[..., 0].all() and not batch.presence[..., 1].any()
        assert batch.visual.shape == (2, 3, 4, 2, 2) and not batch.visual.any() and batch.audio.shape == (2, 3, 5)


def test_a_sound_beside_its_video_is_no_video(tmp_path):
    for name in ("a.mp4", "a.wav", "b.WAV"):
        (tmp_path / name).touch()
    assert [path.name for _, path in find_videos(tmp_path)] == ["a.mp4", "b.WAV"]
    (tmp_path / "b.mp3").touch()
    with pytest.raises(DataError, match="two videos are called 'b'"):
        find_videos(tmp_path)


def test_pictures_alone_are_read_as_lacking_their_sound(tmp_path):
    write_video(tmp_path / "a.mp4", Example(seconds=2, sound=False))
    extractors = [Means("vggish", "audio", (5,)), Means("res18_14x14", "visual", (4, 2, 2))]
    extract(find_videos(tmp_path), tmp_path / "out", extractors, Settings(seconds=2))
    assert np.load(tmp_path / "out/vggish/a.npy").shape == (2, 5)
    assert json.loads((tmp_path / "out/presence.json").read_text()) == {"a": {"audio": 0, "visual": 2}}


def test_what_is_dropped_of_longer_clips_is_printed(tmp_path, capsys):
    for name, seconds in (("short", 2), ("long", 7), ("longer", 9)):
        write_wav(tmp_path / f"{name}.wav", seconds)
    assert read_clip(tmp_path / "long.wav", [0]).seconds == pytest.approx(7) == video_seconds(tmp_path / "long.wav")
    extractors = [Means("vggish", "audio", (5,))]
    settings = Settings(seconds=4)
    print_summary(extract(find_videos(tmp_path), tmp_path / "a", extractors, settings), settings)
    assert ("2 of these are longer than the 4 s that are used (--seconds): 8 of their 16 s are dropped, the longest "
            "has 9 s") in capsys.readouterr().out
    settings = Settings(seconds=60, stride=2)
    print_summary(extract(find_videos(tmp_path), tmp_path / "b", extractors, settings), settings)
    out = capsys.readouterr().out
    assert "dropped" not in out and "no video has more than 5 of the 30 rows of a file; --seconds 10" in out


def test_random_weights_are_the_same_every_time(monkeypatch):
    """And what they give depends on the input; nothing is left of torch's own start of a layer."""
    monkeypatch.setattr(torch.nn.init, "kaiming_uniform_", lambda values, **_: values)
    rng = np.random.default_rng(0)
    clip = Clip(rng.integers(0, 256, (2, 224, 224, 3), dtype=np.uint8),
                np.float32(rng.normal(size=(2, SAMPLE_RATE)) * [[0.01], [0.3]]))
    weights = parse_weights(["random"])
    assert weights.keys() == EXTRACTORS.keys() and set(weights.values()) == {RANDOM}
    for name in EXTRACTORS:
        torch.manual_seed(1)
        first = build_extractor(name, RANDOM, CPU)(clip)
        torch.manual_seed(2)
        np.testing.assert_array_equal(build_extractor(name, RANDOM, CPU)(clip), first)
        assert np.isfinite(np.float16(first)).all() and np.abs(first[0] - first[1]).max() > 0.1 * np.abs(first).max()
    for items in (["random", "vggish=x"], ["rnadom"]):
        with pytest.raises(DataError, match="nor random alone"):
            parse_weights(items)


@pytest.mark.parametrize("content", [b"", b"[", b"3", b"null", b'"weights"', b"\xff", b"[" * 100_000])
def test_settings_of_any_content_are_no_dry_run(tmp_path, content):
    (tmp_path / "extraction.json").write_bytes(content)
    assert not is_dry_run(tmp_path)
