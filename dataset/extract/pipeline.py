"""A folder of videos to feature files, resumable, with a manifest.

Videos are decoded in worker processes while this one runs the networks. Per video and extractor one file
OUT/FOLDER/VIDEO.npy is written under a temporary name and renamed; a line in OUT/manifest.jsonl follows only then, so a
video counts when all its files are whole. Memory holds a few decoded clips, however many videos there are.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterator
from contextlib import closing
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from pydantic import BaseModel, ConfigDict, NonNegativeInt, ValidationError
from tqdm import tqdm

from dataset.extract.media import FRAME, SAMPLE_RATE, SUFFIXES, Clip
from dataset.extract.workers import decoded
from dataset.files import refuse_special, remove_leftovers, write_json, write_jsonl, write_whole
from dataset.lock import alone_in
from dataset.memory import refuse_beyond_memory
from dataset.presence import RECORD
from dataset.types import DataError


@dataclass(frozen=True)
class Settings:
    """What the feature files depend on besides the weights. `seconds` of a clip are used, every `stride`-th of them."""

    seconds: int = 60
    stride: int = 1
    dtype: str = "float16"

    @property
    def chosen(self) -> list[int]:
        return list(range(0, self.seconds, self.stride))

    def memory(self, extractors: list[Callable], workers: int) -> float:
        """Bytes of the decoded clips that wait or are read, and of the features of one, when all are of full length."""
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


def find_videos(folder: Path) -> list[tuple[str, Path]]:
    """Video id (the file name without its suffix) and path of every media file below `folder`."""
    if not folder.is_dir():
        raise DataError(f"video folder {folder} does not exist; give a folder with one file per video")
    found: dict[str, Path] = {}
    for path in sorted(folder.rglob("*")):
        if path.suffix.lower() not in SUFFIXES or path.is_dir():
            continue
        if not path.stem.isprintable():
            raise DataError(f"the name of video {ascii(str(path))} is no text that can be printed; rename it")
        if path.stem in found:
            raise DataError(f"two videos are called '{path.stem}': {found[path.stem]} and {path}; features are named by "
                            "video, so rename or remove one")
        found[path.stem] = path
    if not found:
        raise DataError(f"video folder {folder} holds no video; expected files ending in {', '.join(SUFFIXES)}")
    return list(found.items())


def extract(videos: list[tuple[str, Path]], out: Path, extractors: list[Callable], settings: Settings,
            workers: int = 0) -> Summary:
    """Features of all `videos` that have none yet; DataError when another process extracts into `out`."""
    refuse_beyond_memory(settings.memory(extractors, min(workers, len(videos))), f"a clip of {settings.seconds} seconds",
                         "use fewer --seconds, fewer --workers or a larger --stride")
    with alone_in(out, "extracting into"):
        folders = [e.folder for e in extractors]
        for folder in ("", *folders):
            remove_leftovers(out / folder)
        records = read_manifest(out)
        check_settings(out, settings, not records)
        left = [(name, path) for name, path in videos if not is_done(out, name, records.get(name), folders)]
        summary = Summary(skipped=len(videos) - len(left))
        clips = decoded(left, settings.chosen, workers)
        try:
            with closing(clips), tqdm(clips, total=len(left), desc="videos", unit="video") as bar:
                extract_clips(bar, out, extractors, settings, records, summary)
        finally:                         # what is done must not be taken for complete when the rest never comes
            write_presence(out, records, settings)
    total = len(settings.chosen)
    summary.partly = {n: r["rows"] for n, r in records.items() if min(r["rows"].values()) < total}
    return summary


def extract_clips(clips: tqdm, out: Path, extractors: list[Callable], settings: Settings,
                  records: dict[str, dict[str, Any]], summary: Summary) -> None:
    """Write the features of each of the `clips`, and note it in `records` and their file."""
    with open(out / "manifest.jsonl", "a") as manifest:
        for name, clip in clips:
            rows = clip if isinstance(clip, str) else features_of(clip, extractors, settings)
            if isinstance(rows, str):
                summary.failed[name] = rows
                clips.set_postfix(failed=len(summary.failed))
                continue
            files = {folder: save_rows(out / folder / f"{name}.npy", values) for folder, values in rows.items()}
            earlier = records[name]["files"] if name in records else {}
            records[name] = {"video": name, "rows": rows_of(clip), "files": {**earlier, **files}}
            manifest.write(json.dumps(records[name]) + "\n")
            manifest.flush()
            summary.done += 1


def rows_of(clip: Clip) -> dict[str, int]:
    """Present rows of each modality, from the start."""
    return {"audio": len(clip.sound), "visual": len(clip.frames)}


def features_of(clip: Clip, extractors: list[Callable], settings: Settings) -> dict[str, np.ndarray | None] | str:
    """The rows of each extractor by its folder, None for an absent modality; or the reason why there are none."""
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
    found = extractor(clip)
    if not np.isfinite(found).all():
        raise DataError(f"its {extractor.folder} features hold NaN or infinity")
    values = np.zeros((len(settings.chosen), *extractor.shape), dtype=settings.dtype)
    with np.errstate(over="ignore"):
        values[:present] = found
    if not np.isfinite(values).all():
        raise DataError(f"its {extractor.folder} features exceed the range of {settings.dtype}; use --dtype float32")
    return values


def save_rows(path: Path, values: np.ndarray | None) -> str | None:
    """Write the rows of one file and return their digest; None, and no file, for an absent modality."""
    if values is None:
        return None

    def write(temporary: Path) -> None:
        with open(temporary, "wb") as file:      # given a path without .npy, numpy would append it
            np.save(file, values)

    write_whole(path, write)
    return hashlib.sha256(values.tobytes()).hexdigest()


def check_settings(out: Path, settings: Settings, empty: bool) -> None:
    """One folder holds features of one kind: the settings of the first extraction are kept and asked of all others.

    `empty`: no video is done, so a damaged file can be written again.
    """
    path = out / "extraction.json"
    refuse_special(path)
    here: dict[str, Any] = vars(settings)
    if path.is_file():
        try:
            earlier = json.loads(path.read_bytes())
        except (ValueError, RecursionError) as error:
            if not empty:
                raise DataError(f"{path} is damaged; delete it if the features there were extracted with {here}, else "
                                "extract into another folder") from error
        else:
            if earlier != here:
                raise DataError(f"{out} holds features extracted with {str(earlier)[:200]}, now asked for are {here}; use "
                                "the same options or another folder")
            return
    write_json(path, here)


class Rows(BaseModel):
    """Present rows of each modality."""

    model_config = ConfigDict(strict=True)

    audio: NonNegativeInt
    visual: NonNegativeInt


class Record(BaseModel):
    """A line of the manifest: a video whose files are whole, and their digests by folder, None where there is no file."""

    model_config = ConfigDict(strict=True)

    video: str
    rows: Rows
    files: dict[str, str | None]


def read_manifest(out: Path) -> dict[str, dict[str, Any]]:
    """Records by video. Lines that are damaged, or that a kill left unfinished, are cut: their videos are done again."""
    path = out / "manifest.jsonl"
    refuse_special(path)
    if not path.is_file():
        return {}
    good = list(whole_records(path.read_bytes().splitlines()))
    write_jsonl(path, good)
    return {record["video"]: record for record in good}


def whole_records(lines: list[bytes]) -> Iterator[dict[str, Any]]:
    for line in lines:
        try:
            yield Record.model_validate_json(line).model_dump()
        except ValidationError:
            continue


def is_done(out: Path, video: str, record: dict[str, Any] | None, folders: list[str]) -> bool:
    """Whether a video has all its files, or needs none in a folder because the modality is absent."""
    files = record["files"] if record else {}
    return all(folder in files and (files[folder] is None or (out / folder / f"{video}.npy").is_file())
               for folder in folders)


def write_presence(out: Path, records: dict[str, dict[str, Any]], settings: Settings) -> None:
    """The rows present of every video that lacks some: what the loader reads as absent."""
    total = len(settings.chosen)
    lacking = {n: r["rows"] for n, r in sorted(records.items()) if min(r["rows"].values()) < total}
    write_json(out / RECORD, lacking)
