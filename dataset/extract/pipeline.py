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
from tqdm import tqdm

from dataset.extract.media import SUFFIXES, Clip
from dataset.extract.workers import decoded
from dataset.files import write_json, write_jsonl, write_whole
from dataset.lock import alone_in
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
        if path.suffix.lower() not in SUFFIXES or not path.is_file():
            continue
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
    with alone_in(out, "extracting into"):
        check_settings(out, extractors, settings)
        records = read_manifest(out)
        folders = [e.folder for e in extractors]
        left = [(n, p) for n, p in videos if not set(folders) <= set(records.get(n, {}).get("files", {}))]
        summary = Summary(skipped=len(videos) - len(left))
        with (open(out / "manifest.jsonl", "a") as manifest, closing(decoded(left, settings.chosen, workers)) as clips,
              tqdm(clips, total=len(left), desc="videos", unit="video") as bar):
            for name, clip in bar:
                rows = clip if isinstance(clip, str) else features_of(clip, extractors, settings)
                if isinstance(rows, str):
                    summary.failed[name] = rows
                    bar.set_postfix(failed=len(summary.failed))
                    continue
                files = {folder: save_rows(out / folder / f"{name}.npy", values) for folder, values in rows.items()}
                earlier = records.get(name, {}).get("files", {})
                records[name] = {"video": name, "rows": rows_of(clip), "files": {**earlier, **files}}
                manifest.write(json.dumps(records[name]) + "\n")
                manifest.flush()
                summary.done += 1
        write_presence(out, records, settings)
    total = len(settings.chosen)
    summary.partly = {n: r["rows"] for n, r in records.items() if min(r["rows"].values()) < total}
    return summary


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


def check_settings(out: Path, extractors: list[Callable], settings: Settings) -> None:
    """One folder holds features of one kind: the settings of the first extraction are kept and asked of all others."""
    path = out / "extraction.json"
    here: dict[str, Any] = vars(settings)
    if path.is_file():
        try:
            earlier = json.loads(path.read_text())
        except ValueError as error:
            raise DataError(f"{path} is damaged; extract into another folder") from error
        if earlier != here:
            raise DataError(f"{out} holds features extracted with {earlier}, now asked for are {here}; use the same "
                            "options or another folder")
        return
    write_json(path, here)


def read_manifest(out: Path) -> dict[str, dict[str, Any]]:
    """Records by video. A line that a killed extraction left unfinished is dropped, and cut from the file."""
    path = out / "manifest.jsonl"
    if not path.is_file():
        return {}
    good = list(whole_records(path.read_text().splitlines()))
    write_jsonl(path, good)
    return {record["video"]: record for record in good}


def whole_records(lines: list[str]) -> Iterator[dict[str, Any]]:
    for line in lines:
        try:
            record = json.loads(line)
        except ValueError:
            continue
        if isinstance(record, dict) and {"video", "rows", "files"} <= set(record):
            yield record


def write_presence(out: Path, records: dict[str, dict[str, Any]], settings: Settings) -> None:
    """The rows present of every video that lacks some: what the loader reads as absent."""
    total = len(settings.chosen)
    lacking = {n: r["rows"] for n, r in sorted(records.items()) if min(r["rows"].values()) < total}
    write_json(out / RECORD, lacking)
