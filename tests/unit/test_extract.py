"""Raw media to features: decoding, the log-mel front end, resume, damaged files."""

import copy
import io
import json
import pickle

import librosa
import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn
from torchvision.models import resnet18

from dataset.extract.example import ODD, PITCHES, Example, write_odd, write_video
from dataset.extract.media import SAMPLE_RATE, MediaError, read_clip
from dataset.extract.pipeline import Settings, extract, find_videos
from dataset.extract.resnet import maps_network
from dataset.extract.vggish import VGGish, log_mel
from dataset.extract.weights import load_weights
from dataset.presence import read_recorded
from dataset.types import DataError

TEN = list(range(10))
ROWS = {"no_audio": (0, 10), "no_video": (10, 0), "short_7s": (7, 7)}     # audio, visual; all others have ten of each
BROKEN = ("truncated", "empty", "text")


@pytest.fixture(scope="module")
def odd(tmp_path_factory):
    folder = tmp_path_factory.mktemp("odd")
    write_odd(folder)
    return folder


class Loudness:
    """A stand-in extractor: the root mean square of every second."""

    folder, modality, shape = "loudness", "audio", (1,)

    def __init__(self):
        self.seen = 0

    def __call__(self, clip):
        self.seen += 1
        return np.sqrt((clip.sound ** 2).mean(axis=1, keepdims=True))


class Colour:
    """A stand-in extractor: the mean colour of every frame."""

    folder, modality, shape = "colour", "visual", (3, 1, 1)

    def __call__(self, clip):
        return clip.frames.mean(axis=(1, 2))[:, :, None, None] / 255


@pytest.mark.parametrize("name", ODD)
def test_every_odd_file_gives_its_seconds_or_its_reason(odd, name):
    path = odd / f"{name}.mp4"
    if name in BROKEN:
        with pytest.raises(MediaError, match="decoded|cut off"):
            read_clip(path, TEN)
        return
    clip = read_clip(path, TEN)
    assert (len(clip.sound), len(clip.frames)) == ROWS.get(name, (10, 10))
    if len(clip.sound):
        spectrum = np.abs(np.fft.rfft(clip.sound[2]))          # bins are Hertz
        peaks = set(np.argsort(spectrum[20:500])[-2:] + 20)
        assert peaks == {round(PITCHES["cello"]), round(PITCHES["trumpet"])}
        played = 0.1 * np.sqrt(2 * sum(1 / h ** 2 for h in (1, 2, 3)) / 2)      # two tones of three harmonics
        assert np.sqrt((clip.sound[2] ** 2).mean()) == pytest.approx(played, rel=0.1)


def test_frames_are_taken_in_the_middle_of_their_second(tmp_path):
    """A file whose brightness is its time: frame round((i + 0.5) * fps), at two rates."""
    import av
    for fps in (10, 7):
        path = tmp_path / f"{fps}.mp4"
        with av.open(str(path), "w") as container:
            stream = container.add_stream("libx264", rate=fps)
            stream.width = stream.height = 64
            stream.pix_fmt, stream.options = "yuv420p", {"crf": "1"}
            for number in range(fps * 5):
                image = np.full((64, 64, 3), 4 * number, np.uint8)
                container.mux(stream.encode(av.VideoFrame.from_ndarray(image, format="rgb24")))
            container.mux(stream.encode(None))
        frames = read_clip(path, [0, 2, 4]).frames
        assert frames.shape == (3, 224, 224, 3)
        numbers = frames.mean(axis=(1, 2, 3)) / 4
        assert np.abs(numbers - [(i + 0.5) * fps for i in (0, 2, 4)]).max() <= 1      # the nearest of two, and coding


def test_sound_that_starts_late_stays_late(tmp_path):
    import av
    path, rate = tmp_path / "late.mp4", 16_000
    with av.open(str(path), "w") as container:
        video = container.add_stream("libx264", rate=10)
        video.width = video.height = 64
        video.pix_fmt = "yuv420p"
        audio = container.add_stream("aac", rate=rate)
        audio.codec_context.layout = "mono"
        for _ in range(60):
            container.mux(video.encode(av.VideoFrame.from_ndarray(np.zeros((64, 64, 3), np.uint8), format="rgb24")))
        container.mux(video.encode(None))
        tone = 0.3 * np.sin(2 * np.pi * 440 * np.arange(rate * 3) / rate).astype(np.float32)
        for start in range(0, len(tone), 1024):
            frame = av.AudioFrame.from_ndarray(tone[None, start:start + 1024], format="fltp", layout="mono")
            frame.sample_rate, frame.pts = rate, start + 2 * rate
            container.mux(audio.encode(frame))
        container.mux(audio.encode(None))
    sound = read_clip(path, list(range(6))).sound
    level = np.sqrt((sound ** 2).mean(axis=1))
    assert len(sound) == 5 and level[:2].max() < 0.05 and level[2:5].min() > 0.15


def test_log_mel_is_the_recipe_by_librosa():
    """Power of librosa's STFT, and triangles on librosa's HTK mel scale; VGGish's frames start
    where they are read."""
    rng = np.random.default_rng(0)
    time = np.arange(SAMPLE_RATE) / SAMPLE_RATE
    sound = (0.5 * np.sin(2 * np.pi * 440 * time) + 0.1 * rng.standard_normal(SAMPLE_RATE)).astype(np.float32)
    padded = np.pad(sound, (56, 56))               # librosa centres the window of 400 in the 512 samples of the FFT
    spectrum = np.abs(librosa.stft(padded, n_fft=512, hop_length=160, win_length=400, window="hann", center=False))
    bins = librosa.hz_to_mel(librosa.fft_frequencies(sr=SAMPLE_RATE, n_fft=512), htk=True)
    edges = np.linspace(*librosa.hz_to_mel([125.0, 7500.0], htk=True), 66)
    mel = np.stack([np.interp(bins, edges[i:i + 3], [0, 1, 0], left=0, right=0) for i in range(64)])
    expected = np.log(mel @ spectrum[:, :96] + 0.01).T
    mine = log_mel(torch.from_numpy(sound)[None])[0]
    assert mine.shape == (96, 64)
    np.testing.assert_allclose(mine.numpy(), expected, atol=1e-4)


def test_vggish_has_the_published_names_and_shapes(tmp_path):
    shapes = {"features.0": (64, 1, 3, 3), "features.3": (128, 64, 3, 3), "features.6": (256, 128, 3, 3),
              "features.8": (256, 256, 3, 3), "features.11": (512, 256, 3, 3), "features.13": (512, 512, 3, 3),
              "embeddings.0": (4096, 12288), "embeddings.2": (4096, 4096), "embeddings.4": (128, 4096)}
    network = VGGish()
    published = {f"{name}.weight": torch.zeros(shape) for name, shape in shapes.items()}
    published |= {f"{name}.bias": torch.zeros(shape[0]) for name, shape in shapes.items()}
    assert {k: v.shape for k, v in network.state_dict().items()} == {k: v.shape for k, v in published.items()}
    examples = torch.randn(2, 96, 64)
    out = network(examples)
    assert out.shape == (2, 128) and bool((out >= 0).all()) and bool((out > 0).any())
    maps = network.features(examples[:1, None])[0]             # (512, 6, 4): the linear layer reads channels last
    flat = torch.stack([maps[c, y, x] for y in range(6) for x in range(4) for c in range(512)])
    torch.testing.assert_close(network.embeddings(flat[None]), out[:1], rtol=1e-4, atol=1e-6)


def test_weights_that_do_not_fit_are_named(tmp_path):
    torch.save({"weight": torch.zeros(3, 2)}, tmp_path / "w.pth")
    with pytest.raises(DataError, match=r"'weight' \(expected \[4, 2\]\)"):
        load_weights(nn.Linear(2, 4), tmp_path / "w.pth", "https://example.org/w.pth")
    with pytest.raises(DataError, match="does not exist"):
        load_weights(nn.Linear(2, 4), tmp_path / "none.pth", "https://example.org/w.pth")
    (tmp_path / "cut.pth").write_bytes((tmp_path / "w.pth").read_bytes()[:100])
    with pytest.raises(DataError, match="cannot be loaded"):
        load_weights(nn.Linear(2, 4), tmp_path / "cut.pth", "https://example.org/w.pth")
    torch.save({"weight": torch.ones(4, 2), "bias": torch.zeros(4), "extra": torch.zeros(1)}, tmp_path / "w.pth")
    assert bool((load_weights(nn.Linear(2, 4), tmp_path / "w.pth", "").weight == 1).all())


LAYER = {"weight": torch.ones(4, 2), "bias": torch.zeros(4)}


@pytest.mark.parametrize("content", [
    b"", b"hello world", b"{}", bytes(range(256)), pickle.dumps({"weight": [1.0]}), pickle.dumps(print), [1, 2], None,
    torch.ones(3), {**LAYER, "weight": "text"}, {**LAYER, "weight": torch.ones(4, 2, dtype=torch.complex64)},
    {**LAYER, "weight": torch.ones(4, 2, dtype=torch.int64)}, {**LAYER, "weight": torch.ones(4, 2).to_sparse()},
    {**LAYER, "weight": torch.ones(4, 2, device="meta")}, {**LAYER, "bias": torch.full((4,), torch.nan)},
    {**LAYER, "weight": torch.ones(4, 2) * torch.inf}, {"state_dict": LAYER},
], ids=lambda content: str(content)[:20])
def test_weights_of_any_content_are_one_clear_line(tmp_path, content, recwarn):
    path = tmp_path / "w.pth"
    if isinstance(content, bytes):
        path.write_bytes(content)
    else:
        torch.save(content, path)
    recwarn.clear()
    with pytest.raises(DataError, match=r"w\.pth.*https://example.org/w.pth") as error:
        load_weights(nn.Linear(2, 4), path, "https://example.org/w.pth")
    assert len(str(error.value)) < 400 and not recwarn.list


@settings(max_examples=80, deadline=None)
@given(data=st.data(), zipped=st.booleans())
def test_damaged_weights_are_an_error_or_finite_weights(tmp_path_factory, data, zipped):
    path, file = tmp_path_factory.getbasetemp() / "damaged.pth", io.BytesIO()
    torch.save(LAYER, file, _use_new_zipfile_serialization=zipped)
    content = bytearray(file.getvalue())
    for _ in range(data.draw(st.integers(0, 6))):
        content[data.draw(st.integers(0, len(content) - 1))] = data.draw(st.integers(0, 255))
    path.write_bytes(content[:data.draw(st.integers(0, len(content)))])
    try:
        network = load_weights(nn.Linear(2, 4), path, "https://example.org/w.pth")
    except DataError as error:
        assert "damaged.pth" in str(error)
    else:
        assert all(bool(v.isfinite().all()) for v in network.state_dict().values())


def test_only_the_stride_of_the_last_stage_is_changed():
    """The map has a last stage of stride 1, and all else as published."""
    torch.manual_seed(0)
    published = resnet18()
    network, image = maps_network(copy.deepcopy(published)).eval(), torch.randn(1, 3, 224, 224)
    published.eval()
    with torch.no_grad():
        x = published.maxpool(published.relu(published.bn1(published.conv1(image))))
        x = published.layer3(published.layer2(published.layer1(x)))
        torch.testing.assert_close(network[:-1](image), x)
        first = published.layer4[0]
        y = nn.functional.conv2d(x, first.conv1.weight, stride=1, padding=1)
        y = first.bn2(first.conv2(torch.relu(first.bn1(y))))
        y = torch.relu(y + first.downsample[1](nn.functional.conv2d(x, first.downsample[0].weight)))
        expected = published.layer4[1](y)
        torch.testing.assert_close(network(image), expected)
    assert expected.shape == (1, 512, 14, 14)


def test_extraction_records_what_is_absent_and_failures(odd, tmp_path):
    summary = extract(find_videos(odd), tmp_path, [Loudness(), Colour()], Settings(seconds=10, dtype="float32"))
    assert set(summary.failed) == set(BROKEN) and all("decoded" in r or "cut off" in r for r in summary.failed.values())
    assert json.loads((tmp_path / "presence.json").read_text()) == {
        name: {"audio": a, "visual": v} for name, (a, v) in sorted(ROWS.items())}
    assert not (tmp_path / "loudness" / "no_audio.npy").exists() and not (tmp_path / "colour" / "no_video.npy").exists()
    short = np.load(tmp_path / "loudness" / "short_7s.npy")
    assert short.shape == (10, 1) and bool((short[:7] > 0.02).all()) and not short[7:].any()
    recorded = read_recorded(tmp_path, 0.0)
    assert recorded.presence("short_7s", 5, 2, train=False)[:, 0].tolist() == [True, True, True, True, False]
    assert recorded.lacks("no_audio", 0) and not recorded.lacks("no_audio", 1) and not recorded.lacks("fps_5", 0)


def test_a_killed_extraction_continues(odd, tmp_path):
    """And a torn line of the manifest counts for nothing."""
    videos = find_videos(odd)[:4]
    whole = tmp_path / "whole"
    extract(videos, whole, [Loudness(), Colour()], Settings(seconds=10))

    class Killed(Loudness):
        def __call__(self, clip):
            if self.seen == 1:
                raise KeyboardInterrupt
            return super().__call__(clip)

    out = tmp_path / "out"
    with pytest.raises(KeyboardInterrupt):
        extract(videos, out, [Killed(), Colour()], Settings(seconds=10))
    with open(out / "manifest.jsonl", "a") as manifest:
        manifest.write('{"video": "torn", "ro')
    loudness = Loudness()
    summary = extract(videos, out, [loudness, Colour()], Settings(seconds=10))
    assert summary.skipped >= 1 and summary.done + summary.skipped + len(summary.failed) == len(videos)
    assert loudness.seen < len(videos) - len(summary.failed)
    for file in sorted(p.relative_to(whole) for p in whole.rglob("*.npy")):
        np.testing.assert_array_equal(np.load(out / file), np.load(whole / file))
    assert not list(out.rglob("*.tmp"))
    again = extract(videos, out, [Loudness(), Colour()], Settings(seconds=10))
    assert again.done == 0
    with pytest.raises(DataError, match="seconds"):
        extract(videos, out, [Loudness(), Colour()], Settings(seconds=5))


def test_workers_give_the_same_files(odd, tmp_path):
    videos = find_videos(odd)[:4]
    for workers in (0, 2):
        extract(videos, tmp_path / str(workers), [Loudness()], Settings(seconds=10), workers)
    for file in (tmp_path / "0").rglob("*.npy"):
        np.testing.assert_array_equal(np.load(file), np.load(tmp_path / "2" / file.relative_to(tmp_path / "0")))


def test_odd_video_folders_are_refused(tmp_path):
    """No folder, no video, two videos of a name, a name that cannot be printed."""
    with pytest.raises(DataError, match="does not exist"):
        find_videos(tmp_path / "none")
    with pytest.raises(DataError, match="holds no video"):
        find_videos(tmp_path)
    for folder in ("a", "b"):
        (tmp_path / folder).mkdir()
        (tmp_path / folder / "same.mp4").touch()
    with pytest.raises(DataError, match="two videos are called 'same'"):
        find_videos(tmp_path)
    (tmp_path / "b/same.mp4").rename(tmp_path / "b/\udcff.mp4")
    with pytest.raises(DataError, match="udcff.mp4' is no text that can be printed; rename it"):
        find_videos(tmp_path)


@pytest.fixture(scope="module")
def small_video(tmp_path_factory):
    path = tmp_path_factory.mktemp("small") / "small.mp4"
    write_video(path, Example(seconds=2))
    return path.read_bytes()


@settings(max_examples=60, deadline=None)
@given(data=st.data())
def test_damaged_media_gives_a_reason_or_a_clip(small_video, tmp_path_factory, data):
    damaged = bytearray(small_video)
    for _ in range(data.draw(st.integers(1, 8))):
        damaged[data.draw(st.integers(0, len(damaged) - 1))] = data.draw(st.integers(0, 255))
    damaged = damaged[:data.draw(st.integers(0, len(damaged)))] if data.draw(st.booleans()) else damaged
    path = tmp_path_factory.getbasetemp() / "damaged.mp4"
    path.write_bytes(damaged)
    try:
        clip = read_clip(path, [0, 1])
    except MediaError as error:
        assert str(error)
    else:
        assert clip.frames.shape[1:] == (224, 224, 3) and clip.sound.shape[1:] == (SAMPLE_RATE,)
        assert len(clip.frames) <= 2 and len(clip.sound) <= 2 and bool(np.isfinite(clip.sound).all())
