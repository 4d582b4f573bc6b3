"""Small real media files: drawn instruments that sound, in H.264 and AAC, and odd cases."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from fractions import Fraction
from itertools import chain
from pathlib import Path

import av
import numpy as np
from PIL import Image, ImageDraw

PITCHES = {"flute": 880.0, "cello": 110.0, "trumpet": 440.0, "bass": 55.0}
COLOURS = {"flute": (230, 230, 250), "cello": (140, 80, 30), "trumpet": (240, 200, 40), "bass": (60, 60, 90)}


@dataclass(frozen=True)
class Example:
    """How one file is made. `sources`: instruments, left to right; `silent`: seen, not heard."""

    sources: tuple[str, ...] = ("cello", "trumpet")
    silent: tuple[str, ...] = ()
    seconds: float = 10.0
    fps: int = 10
    rate: int = 44_100
    channels: int = 2
    picture: bool = True
    sound: bool = True
    size: tuple[int, int] = (160, 120)
    variable: bool = False               # a variable frame rate: every second frame of every odd second is left out
    cut: float | None = None             # keep this share of the file's bytes


def draw(example: Example, time: float) -> Image.Image:
    """A body per instrument, with a bow that moves while it plays."""
    image = Image.new("RGB", example.size, (20, 60, 30))
    pen, width, height = ImageDraw.Draw(image), example.size[0] / len(example.sources), example.size[1]
    for i, kind in enumerate(example.sources):
        left, right = (i + 0.2) * width, (i + 0.8) * width
        pen.ellipse((left, height / 4, right, 0.9 * height), fill=COLOURS[kind])
        sway = 0 if kind in example.silent else height / 8 * np.sin(2 * np.pi * 2 * time)
        pen.line((left, height / 2 + sway, right, 0.6 * height - sway), fill=(255, 255, 255), width=4)
    return image


def synthesise(example: Example) -> np.ndarray:
    """(channels, samples) float32: a tone with overtones per sounding instrument."""
    time = np.arange(round(example.seconds * example.rate)) / example.rate
    wave = np.zeros_like(time)
    for kind in example.sources:
        if kind not in example.silent:
            wave += sum(np.sin(2 * np.pi * PITCHES[kind] * h * time) / h for h in (1, 2, 3))
    wave *= 0.2 / len(example.sources)
    return np.repeat(wave[None].astype(np.float32), example.channels, axis=0)


def write_video(path: Path, example: Example) -> None:
    """Encode `example` to `path` (MP4, H.264 and AAC)."""
    with av.open(str(path), "w") as container:
        streams = []
        if example.picture:
            video = container.add_stream("libx264", rate=example.fps)
            (video.width, video.height), video.pix_fmt = example.size, "yuv420p"
            video.codec_context.time_base = Fraction(1, example.fps * 10)
            streams.append((video, frames(example)))
        if example.sound:
            audio = container.add_stream("aac", rate=example.rate)
            audio.codec_context.layout = "mono" if example.channels == 1 else "stereo"
            streams.append((audio, pieces(example)))
        for stream, content in streams:
            for frame in chain(content, (None,)):
                container.mux(stream.encode(frame))
    if example.cut is not None:
        data = path.read_bytes()
        path.write_bytes(data[:int(len(data) * example.cut)])


def frames(example: Example) -> Iterator[av.VideoFrame]:
    for number in range(round(example.seconds * example.fps)):
        if not (example.variable and number // example.fps % 2 and number % 2):
            frame = av.VideoFrame.from_image(draw(example, number / example.fps))
            frame.pts, frame.time_base = number * 10, Fraction(1, example.fps * 10)
            yield frame


def pieces(example: Example) -> Iterator[av.AudioFrame]:
    wave, layout = synthesise(example), "mono" if example.channels == 1 else "stereo"
    for start in range(0, wave.shape[1], 1024):
        frame = av.AudioFrame.from_ndarray(np.ascontiguousarray(wave[:, start:start + 1024]), "fltp", layout)
        frame.sample_rate, frame.pts, frame.time_base = example.rate, start, Fraction(1, example.rate)
        yield frame


# The odd cases a folder of real videos holds.
ODD = {
    "no_audio": Example(sound=False),
    "no_video": Example(picture=False),
    "short_7s": Example(seconds=7),
    "long_90s": Example(seconds=90, fps=5),
    "fps_5": Example(fps=5),
    "variable_rate": Example(variable=True),
    "mono_8khz": Example(rate=8_000, channels=1),
    "stereo_48khz": Example(rate=48_000),
    "truncated": Example(cut=0.5),
}


def write_odd(folder: Path) -> None:
    """Every odd case, an empty file and a text file that calls itself a video."""
    folder.mkdir(parents=True, exist_ok=True)
    for name, example in ODD.items():
        write_video(folder / f"{name}.mp4", example)
    (folder / "empty.mp4").write_bytes(b"")
    (folder / "text.mp4").write_text("this is not a video\n")


def write_example_dataset(root: Path, videos: int, seconds: float) -> None:
    """Write `videos` files and questions on them; one in six is test, one in six validation."""
    (root / "videos").mkdir(parents=True, exist_ok=True)
    rng, records = np.random.default_rng(0), {"train": [], "val": [], "test": []}
    for number in range(videos):
        sources = tuple(str(k) for k in rng.permutation(list(PITCHES))[:rng.integers(1, 4)])
        silent = tuple(k for k in sources if rng.random() < 0.3)
        name = f"{number:08d}"
        write_video(root / "videos" / f"{name}.mp4", Example(sources, silent, seconds))
        split = {4: "val", 5: "test"}.get(number % 6, "train")
        records[split] += questions_on(name, sources, silent, rng)
    (root / "json_update").mkdir(exist_ok=True)
    for split, items in records.items():
        numbered = [{**item, "question_id": i, "question_deleted": 0} for i, item in enumerate(items)]
        (root / "json_update" / f"avqa-{split}.json").write_text(json.dumps(numbered, indent=1))


def questions_on(name: str, sources: tuple[str, ...], silent: tuple[str, ...], rng) -> list[dict[str, str]]:
    """What is heard, what is seen, and what is both, in the wording of MUSIC-AVQA."""
    def item(kind: tuple[str, str], text: str, values: list[str], answer: str) -> dict[str, str]:
        return {"video_id": name, "type": json.dumps(kind), "question_content": text,
                "templ_values": json.dumps(values), "anser": answer}

    asked, numbers = str(rng.choice(list(PITCHES))), ("zero", "one", "two", "three")
    heard = [k for k in sources if k not in silent]
    return [
        item(("Audio", "Counting"), "Is there a <Object> sound?", [asked], "yes" if asked in heard else "no"),
        item(("Visual", "Counting"), "Is there a <Object> in the entire video?", [asked],
             "yes" if asked in sources else "no"),
        item(("Audio-Visual", "Counting"), "How many instruments in the video did not sound from beginning to end?", [],
             numbers[len(silent)]),
    ]
