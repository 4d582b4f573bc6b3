"""A folder of videos to feature files, resumable, with a manifest.

Videos are decoded in worker processes while this one runs the networks. Per video and extractor one
file OUT/FOLDER/VIDEO.npy is written under a temporary name and renamed; a line in
OUT/manifest.jsonl follows only then, so a video counts when all its files are whole. Memory holds a
few decoded clips, however many videos there are.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable
from contextlib import closing, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Literal

import numpy as np
from pydantic import BaseModel, ConfigDict, Field, NonNegativeInt, ValidationError
from tqdm import tqdm

from dataset.extract.media import FRAME, SAMPLE_RATE, SOUNDS, SUFFIXES, Clip
from dataset.extract.workers import decoded
from dataset.extracted import SETTINGS
from dataset.files import refuse_special, remove_leftovers, write_json, write_jsonl, write_whole
from dataset.lock import alone_in
from dataset.memory import refuse_beyond_memory
from dataset.presence import RECORD
from dataset.types import MODALITIES, DataError

# Present rows of each modality, from the start.
Rows = Annotated[dict[Literal[MODALITIES], NonNegativeInt], Field(min_length=2)]


@dataclass(frozen=True)
class Settings:
    """What feature files depend on: every `stride`-th of so many `seconds`; `weights`: RANDOM, or
    None for published ones.
    """

    seconds: int = 60
    stride: int = 1
    dtype: str = "float16"
    weights: str | None = None

    @property
    def chosen(self) -> list[int]:
        return list(range(0, self.seconds, self.stride))

    def memory(self, extractors: list[Callable], workers: int) -> float:
        """Bytes of the clips that wait or are read, at full length, and of one's features."""
        rows = -(-self.seconds // self.stride)
        clip = 4 * SAMPLE_RATE * (self.seconds + rows) + 2 * FRAME * FRAME * 3 * rows
        values = sum(float(np.prod(extractor.shape)) for extractor in extractors) * rows
        return (workers + 1) * clip + values * (4 + np.dtype(self.dtype).itemsize)


@dataclass
class Summary:
    """What an extraction did: counts, and the reason for every video that could not be used."""

    done: int = 0
    skipped: int = 0
    partly: dict[str, dict[str, int]] = field(default_factory=dict)
    failed: dict[str, str] = field(default_factory=dict)
    longer: dict[str, float] = field(default_factory=dict)       # seconds of the videos that are cut
    longest: int = 0                                             # rows of the longest video


class Extracted(BaseModel):
    """A line of the manifest: a video whose files are whole; their digests by folder, or None.

    `weights`: as in Settings.
    """

    model_config = ConfigDict(strict=True)

    video: str
    rows: Rows
    files: dict[str, str | None]
    weights: str | None = None


def find_videos(folder: Path) -> list[tuple[str, Path]]:
    """Video id (the file name without its suffix) and path of every media file below `folder`; a
    sound beside a video of its name is taken for a copy of that video's.
    """
    if not folder.is_dir():
        raise DataError(f"video folder {folder} does not exist; give a folder with one file per video")
    videos: dict[str, Path] = {}
    for path in sorted(folder.rglob("*"), key=lambda path: (is_sound(path), path)):
        if path.suffix.lower() not in SUFFIXES or path.is_dir():
            continue
        if is_sound(path) and path.stem in videos and not is_sound(videos[path.stem]):
            continue
        if not path.stem.isprintable():
            raise DataError(f"the name of video {ascii(str(path))} is no text that can be printed; rename it")
        first = videos.setdefault(path.stem, path)
        if first != path:
            raise DataError(f"two videos are called '{path.stem}': {first} and {path}; features are named by video, so "
                            "rename or remove one")
    if not videos:
        raise DataError(f"video folder {folder} holds no video; expected files ending in {', '.join(SUFFIXES)}")
    return list(videos.items())


def is_sound(path: Path) -> bool:
    return path.suffix.lower() in SOUNDS


def extract(videos: list[tuple[str, Path]], out: Path, extractors: list[Callable], settings: Settings,
            workers: int = 0) -> Summary:
    """Features of `videos` that have none; DataError when another process extracts into `out`."""
    needed = settings.memory(extractors, min(workers, len(videos)))
    refuse_beyond_memory(needed, f"a clip of {settings.seconds} seconds",
                         "use fewer --seconds, fewer --workers or a larger --stride")
    with alone_in(out, "extracting into"):
        folders = [e.folder for e in extractors]
        for folder in ("", *folders):
            remove_leftovers(out / folder)
        extracted = read_manifest(out)
        check_settings(out, settings, not extracted)
        left = [(name, path) for name, path in videos if not is_done(out, name, extracted.get(name), folders)]
        summary = Summary(skipped=len(videos) - len(left))
        clips = decoded(left, settings.chosen, workers)
        try:
            with closing(clips), tqdm(clips, total=len(left), desc="videos", unit="video") as bar:
                extract_clips(bar, out, extractors, settings, extracted, summary)
        finally:                         # what is done must not be taken for complete when the rest never comes
            summary.partly = {name: line.rows for name, line in sorted(extracted.items())
                              if min(line.rows.values()) < len(settings.chosen)}
            write_json(out / RECORD, summary.partly)         # what the loader reads as absent
            summary.longest = max((max(line.rows.values()) for line in extracted.values()), default=0)
        for extractor in extractors:
            write_shape(out, extractor, settings, summary.partly)
    return summary


def extract_clips(clips: tqdm, out: Path, extractors: list[Callable], settings: Settings,
                  extracted: dict[str, Extracted], summary: Summary) -> None:
    """Write the features of each of the `clips`, and note it in `extracted` and in the manifest."""
    with open(out / "manifest.jsonl", "a") as manifest:
        for name, clip in clips:
            values = clip if isinstance(clip, str) else features_of(clip, extractors, settings)
            if isinstance(values, str):
                summary.failed[name] = values
                clips.set_postfix(failed=len(summary.failed))
                continue
            files = extracted[name].files if name in extracted else {}
            files |= {folder: save_rows(out / folder / f"{name}.npy", rows) for folder, rows in values.items()}
            extracted[name] = Extracted(video=name, rows=rows_of(clip), files=files, weights=settings.weights)
            manifest.write(json.dumps(extracted[name].model_dump(exclude_defaults=True)) + "\n")
            manifest.flush()
            summary.done += 1
            if clip.seconds >= settings.seconds + 0.5:
                summary.longer[name] = clip.seconds


def rows_of(clip: Clip) -> dict[str, int]:
    return {"audio": len(clip.sound), "visual": len(clip.frames)}


def features_of(clip: Clip, extractors: list[Callable], settings: Settings) -> dict[str, np.ndarray | None] | str:
    """The rows of each extractor by folder, None for an absent modality; or why there are none."""
    try:
        return {extractor.folder: padded_rows(clip, extractor, settings) for extractor in extractors}
    except DataError as error:
        return str(error)
    except Exception as error:      # one odd clip of thousands must not end an extraction, whatever a network raises
        return f"its features cannot be made ({type(error).__name__}: {' '.join(str(error).split())[:200]})"


def padded_rows(clip: Clip, extractor: Callable, settings: Settings) -> np.ndarray | None:
    """(rows, ...) of one extractor, zeros where the clip has ended; None for an absent modality."""
    present = rows_of(clip)[extractor.modality]
    if not present:
        return None
    features = extractor(clip)
    if not np.isfinite(features).all():
        raise DataError(f"its {extractor.folder} features hold NaN or infinity")
    values = np.zeros((len(settings.chosen), *extractor.shape), dtype=settings.dtype)
    with np.errstate(over="ignore"):
        values[:present] = features
    if not np.isfinite(values).all():
        raise DataError(f"its {extractor.folder} features exceed the range of {settings.dtype}; use --dtype float32")
    return values


def write_shape(out: Path, extractor: Callable, settings: Settings, partly: dict[str, dict[str, int]]) -> None:
    """Where all videos lack a modality: zeros for one of them. They are never read, but a folder of
    features must give the shape.
    """
    lacking = [name for name, rows in partly.items() if not rows[extractor.modality]]
    folder = out / extractor.folder
    if lacking and not any(folder.glob("*.npy")):
        save_rows(folder / f"{lacking[0]}.npy", np.zeros((len(settings.chosen), *extractor.shape), settings.dtype))


def save_rows(path: Path, values: np.ndarray | None) -> str | None:
    """Write one file, return the digest of its rows; None, and no file, for an absent modality."""
    if values is None:
        return None

    def write(temporary: Path) -> None:
        with open(temporary, "wb") as file:      # given a path without .npy, numpy would append it
            np.save(file, values)

    write_whole(path, write)
    return hashlib.sha256(values.tobytes()).hexdigest()


def check_settings(out: Path, settings: Settings, empty: bool) -> None:
    """One folder holds features of one kind: the settings of the first extraction are kept and
    asked of all others.

    `empty`: no video is done, so a damaged file can be written again.
    """
    path, here = out / SETTINGS, {key: value for key, value in vars(settings).items() if value is not None}
    refuse_special(path)
    try:
        earlier = json.loads(path.read_bytes())
    except (FileNotFoundError, ValueError, RecursionError) as error:
        if not empty and path.is_file():
            raise DataError(f"{path} is damaged; delete it if the features there were extracted with {here}, else "
                            "extract into another folder") from error
        write_json(path, here)
        return
    if earlier != here:
        raise DataError(f"{out} holds features extracted with {str(earlier)[:200]}, now asked for are {here}; use the "
                        "same options or another folder")


def read_manifest(out: Path) -> dict[str, Extracted]:
    """The manifest by video. Damaged and unfinished lines are cut: their videos are done again."""
    path = out / "manifest.jsonl"
    refuse_special(path)
    extracted = {}
    if path.is_file():
        for line in path.read_bytes().splitlines():
            with suppress(ValidationError):
                whole = Extracted.model_validate_json(line)
                extracted[whole.video] = whole
        write_jsonl(path, [line.model_dump(exclude_defaults=True) for line in extracted.values()])
    return extracted


def is_done(out: Path, video: str, extracted: Extracted | None, folders: list[str]) -> bool:
    """Whether a video has all its files, or needs none because the modality is absent."""
    files = extracted.files if extracted else {}
    return all(folder in files and (files[folder] is None or (out / folder / f"{video}.npy").is_file())
               for folder in folders)
