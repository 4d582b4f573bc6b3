"""A video file to frames and sound, decoded with PyAV (the FFmpeg libraries in one wheel).

Time starts where the container starts. Second i of a clip is *present* in a stream that reaches its
middle, i + 0.5: that is where its frame is taken and half of its sound is there. What a shorter
clip lacks is absent, never repeated: a repeated second would be counted as played.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import av
import numpy as np
from av.stream import Disposition
from PIL import Image

from dataset.files import is_special

SAMPLE_RATE = 16_000         # of VGGish
FRAME = 224                  # pixels of a frame's side, of ResNet and CLIP
SOUNDS = (".wav", ".flac", ".mp3", ".m4a", ".ogg", ".opus", ".aac", ".wma", ".aiff")
SUFFIXES = (".mp4", ".mkv", ".webm", ".mov", ".avi", ".m4v", ".flv", ".mpg", ".mpeg", ".wmv", ".ts", ".3gp", *SOUNDS)


class MediaError(Exception):
    """A file that cannot be decoded; the message is the reason."""


@dataclass(frozen=True)
class Clip:
    """The first seconds of a video. A stream that the file lacks has no rows.

    `frames` (n, size, size, 3) uint8, one per present second; `sound` (m, 16000) float32 in [-1,
    1], one row per present second, the last one padded with zeros. `seconds`: the length of the
    whole video as its header gives it, 0 where it gives none.
    """

    frames: np.ndarray
    sound: np.ndarray
    seconds: float = 0.0


def read_clip(path: Path, seconds: list[int], size: int = FRAME) -> Clip:
    """Frames and sound of the given `seconds` (ascending), without those past a stream's end.

    MediaError when the file cannot be opened, holds neither stream, breaks off or is damaged.
    """
    if is_special(path):
        raise MediaError("a pipe, a socket or a device, no ordinary file")
    try:
        with av.open(str(path)) as container:
            if not container.streams.video and not container.streams.audio:
                raise MediaError("neither a video nor an audio stream")
            length = length_of(container)
            frames = read_frames(container, seconds, size) if has_picture(container) else []
        with av.open(str(path)) as container:
            sound = read_sound(container, seconds) if container.streams.audio else np.zeros((0, SAMPLE_RATE), "f4")
    except MediaError:
        raise
    except Exception as error:      # one damaged file of thousands must not end an extraction
        raise MediaError(f"cannot be decoded ({type(error).__name__}: {' '.join(str(error).split())[:200]})") from error
    if not len(frames) and not len(sound):
        raise MediaError("no second of picture or sound could be decoded")
    return Clip(np.stack(frames) if len(frames) else np.zeros((0, size, size, 3), np.uint8), sound, length)


def video_seconds(path: Path) -> float:
    """Length of a media file that could be read."""
    with av.open(str(path)) as container:
        return length_of(container)


def length_of(container) -> float:
    """Seconds, as the header gives them; 0 where it gives none."""
    return (container.duration or 0) / av.time_base


def has_picture(container) -> bool:
    """Whether there is a video stream; the cover of a song is none."""
    return bool(container.streams.video) and not container.streams.video[0].disposition & Disposition.attached_pic


def start_of(container) -> float:
    return (container.start_time or 0) / av.time_base


def read_frames(container, seconds: list[int], size: int) -> list[np.ndarray]:
    """The frame nearest to each second's middle, resized without crop, as in the official recipe.

    For a constant rate this is frame round((i + 0.5) * fps). Only chosen frames are converted.
    """
    stream = container.streams.video[0]
    stream.thread_type = "AUTO"
    gap = 1 / float(stream.average_rate) if stream.average_rate else 0.04
    chosen, wanted, before, time = [], list(seconds), None, None
    for number, frame in enumerate(container.decode(stream)):
        time = (number * gap if frame.time is None else frame.time) - start_of(container)
        while wanted and time >= wanted[0] + 0.5:
            middle = wanted.pop(0) + 0.5
            nearer = before if before and middle - before[0] < time - middle else (time, frame)
            chosen.append(resized(nearer[1], size))
        if not wanted:
            return chosen
        before = time, frame
    if before is None:
        raise MediaError("the video stream holds no frame that can be decoded")
    end = before[0] + gap
    check_end("video", end, stream, container)
    while wanted and end >= wanted[0] + 0.5:         # the last frame is shown until the end
        wanted.pop(0)
        chosen.append(resized(before[1], size))
    return chosen


def resized(frame, size: int) -> np.ndarray:
    return np.asarray(frame.to_image().resize((size, size), Image.Resampling.BILINEAR))


def read_sound(container, seconds: list[int]) -> np.ndarray:
    """(m, 16000): whole seconds at 16 kHz, channels averaged."""
    stream = container.streams.audio[0]
    # All channels in one plane: PyAV cannot read planes of eight channels or more.
    resampler = av.AudioResampler(format="flt", rate=SAMPLE_RATE)
    last = (seconds[-1] + 1) * SAMPLE_RATE
    pieces, length = [], None
    for frame in container.decode(stream):
        if length is None:           # sound that starts after the picture is silent until then
            lead = 0 if frame.time is None else round((frame.time - start_of(container)) * SAMPLE_RATE)
            pieces, length = [np.zeros(min(max(lead, 0), last), np.float32)], max(lead, 0)
        for part in resampler.resample(frame):
            pieces.append(averaged(part))
            length += part.samples
        if length >= last:
            break
    if length is None:
        raise MediaError("the audio stream holds no sample that can be decoded")
    if length < last:
        pieces += map(averaged, resampler.resample(None))
        check_end("audio", length / SAMPLE_RATE, stream, container)
    wave = np.concatenate(pieces)[:last]
    present = [s for s in seconds if len(wave) >= (s + 0.5) * SAMPLE_RATE]
    rows = np.zeros((len(present), SAMPLE_RATE), np.float32)
    for row, second in zip(rows, present, strict=True):
        piece = wave[second * SAMPLE_RATE:(second + 1) * SAMPLE_RATE]
        row[:len(piece)] = piece
    if not np.isfinite(rows).all():
        raise MediaError("the sound holds samples that are NaN or infinite")
    return rows


def averaged(frame: av.AudioFrame) -> np.ndarray:
    """(samples,) float32: the mean over the channels of a frame of format flt at 16 kHz."""
    if frame.format.name != "flt" or frame.sample_rate != SAMPLE_RATE:      # the resampler passes on what began as such
        raise MediaError("the sound changes its format in the middle")
    return frame.to_ndarray().reshape(frame.samples, -1).mean(axis=1)       # (1, samples * channels) -> (samples,)


def check_end(kind: str, end: float, stream, container) -> None:
    """Fail when a stream stops well before its header says: its last rows are not just absent."""
    promised = float(stream.duration * stream.time_base) if stream.duration else 0.0
    if promised - end > max(1.0, 0.05 * promised):
        raise MediaError(f"cut off: {kind} ends after {end:.1f} s of the {promised:.1f} s that its header gives")
