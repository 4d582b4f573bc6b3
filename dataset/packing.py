"""Feature files into one packed array, resumable; dataset/packed.py describes the array."""

from __future__ import annotations

import hashlib
import io
import json
import os
import time
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO, Literal

import numpy as np
from pydantic import BaseModel, ConfigDict, PositiveInt, ValidationError
from tqdm import tqdm

from dataset.files import refuse_special, write_json, write_jsonl
from dataset.packed import FORMAT
from dataset.store import FeatureStore
from dataset.types import DataError

SYNC_SECONDS = 1.0           # packed rows wait this long for the disk before the journal names them


class Done(BaseModel):
    """A line of the journal: a video on the disk, its digest and number of segments."""

    model_config = ConfigDict(strict=True, extra="forbid")

    video: str
    sha256: str
    segments: PositiveInt


class Packing:
    """One modality on its way into one array, FOLDER/NAME.npy.

    `videos` are those in the source folder; `failed` gives the reason for each that could not be
    read. The array is filled under a temporary name with plain writes (mapped pages would count as
    memory) and each video is read back and compared. A line in a journal follows once the disk has
    a video, so a killed run continues where it was up to a second before. The caller holds `folder`
    alone (dataset/lock.py).
    """

    def __init__(self, source: FeatureStore, folder: Path, name: str,
                 dtype: Literal["float16", "float32"] = "float16") -> None:
        self.source, self.folder, self.name, self.dtype = source, folder, name, dtype
        self.videos, self.failed = source.videos, {}
        self.shape = len(self.videos), source.segments, *source.shape
        self.bytes_per_video = int(np.prod(self.shape[1:])) * np.dtype(dtype).itemsize
        self.temporary, self.journal = folder / f".{name}.npy.partial", folder / f".{name}.journal"
        self.settings = {"format": FORMAT, "shape": list(self.shape), "dtype": dtype, "stride": source.stride,
                         "source": str(source.folder), "source_rows": source.rows, "layout": source.layout,
                         "listing": hashlib.sha256("\n".join(self.videos).encode()).hexdigest()}
        header = io.BytesIO()
        np.lib.format.write_array_header_2_0(header, {"descr": np.lib.format.dtype_to_descr(np.dtype(dtype)),
                                                      "fortran_order": False, "shape": self.shape})
        self.header = header.getvalue()          # the first bytes of the array's file
        self.size = len(self.header) + len(self.videos) * self.bytes_per_video

    def run(self) -> Iterator[str]:
        """Pack what is left, yield each video as it is done, then name the array and its index."""
        self.folder.mkdir(parents=True, exist_ok=True)
        for path in (self.temporary, self.journal):
            refuse_special(path)
        done = self.resume()
        with open(self.temporary, "r+b") as array:
            journal = Journal(self.journal, array)
            try:
                yield from self.pack_videos(array, journal, done)
            finally:
                journal.write()
        if not done:
            reason = next(iter(self.failed.values()), "no file")
            raise DataError(f"none of the {len(self.videos)} files in {self.source.folder} can be packed: {reason}")
        rows = {video: row for row, video in enumerate(self.videos) if video in done}
        present = {video: done[video].segments for video in rows if done[video].segments < self.source.segments}
        index = self.folder / f"{self.name}.json"
        index.unlink(missing_ok=True)         # killed here, there is no store rather than one with the index of another
        os.replace(self.temporary, self.folder / f"{self.name}.npy")
        digests = {video: done[video].sha256 for video in rows}
        write_json(index, {**self.settings, "rows": rows, "sha256": digests, "present": present})
        self.journal.unlink()

    def pack_videos(self, array: BinaryIO, journal: Journal, done: dict[str, Done]) -> Iterator[str]:
        """Pack what is not `done` or was lost on the way to the disk."""
        for row, video in enumerate(self.videos):
            offset = len(self.header) + row * self.bytes_per_video
            if video in done and not self.holds(array, offset, done[video].sha256):
                tqdm.write(f"{self.name}: the rows of {video} are not those of the journal; packing them again")
                del done[video]
            if video not in done:
                try:
                    done[video] = self.pack_video(array, offset, video)
                except DataError as error:
                    self.failed[video] = str(error)
                    continue
                journal.add(done[video])
            yield video

    def resume(self) -> dict[str, Done]:
        """The videos an interrupted run finished; a new array where nothing useful is left."""
        if self.journal.is_file() and self.temporary.is_file():
            try:
                return self.left_behind()
            except DataError as error:
                tqdm.write(f"{self.name}: {error}; this array is started again")
        with open(self.temporary, "wb") as file:
            file.write(self.header)
            file.truncate(self.size)
        write_jsonl(self.journal, [self.settings])
        return {}

    def left_behind(self) -> dict[str, Done]:
        """The videos in the journal of an interrupted run; DataError when it cannot go on."""
        first, *lines = self.journal.read_bytes().split(b"\n")
        if first != json.dumps(self.settings).encode():
            raise DataError(f"{self.journal} of an interrupted run is for other features or options, or is damaged")
        with open(self.temporary, "rb") as file:
            if file.read(len(self.header)) != self.header or file.seek(0, os.SEEK_END) != self.size:
                raise DataError(f"{self.temporary} of an interrupted run is cut off or damaged")
        try:
            done = [Done.model_validate_json(line) for line in lines[:-1]]      # the last one, without its end, is torn
        except ValidationError as error:
            raise DataError(f"{self.journal} of an interrupted run is damaged") from error
        write_jsonl(self.journal, [self.settings, *(line.model_dump() for line in done)])
        return {line.video: line for line in done}

    def holds(self, array: BinaryIO, offset: int, digest: str) -> bool:
        """Whether the bytes of one video in the array have this digest."""
        array.seek(offset)
        return hashlib.sha256(array.read(self.bytes_per_video)).hexdigest() == digest

    def pack_video(self, array: BinaryIO, offset: int, video: str) -> Done:
        """Write one video's segments at `offset` and read them back."""
        values = self.source.read_segments(video)
        with np.errstate(over="ignore"):
            packed = np.ascontiguousarray(values, dtype=self.dtype)
        if not np.isfinite(packed).all():
            raise DataError(f"feature file {self.source.folder / video}.npy holds values beyond {self.dtype}; use "
                            "--dtype float32")
        data = packed.tobytes()
        array.seek(offset)
        array.write(data)
        array.flush()
        array.seek(offset)
        if array.read(len(data)) != data:
            raise OSError(f"{self.temporary} does not hold what was written to it; check the disk")
        return Done(video=video, sha256=hashlib.sha256(data).hexdigest(), segments=self.source.segments_of(video))


class Journal:
    """The journal at `path`: it names a video once the disk has its rows of the open `array`."""

    def __init__(self, path: Path, array: BinaryIO) -> None:
        self.path, self.array = path, array
        self.waiting, self.due = [], time.monotonic() + SYNC_SECONDS

    def add(self, line: Done) -> None:
        self.waiting.append(line)
        if time.monotonic() >= self.due:
            self.write()

    def write(self) -> None:
        """Wait until the disk has the array, then name the videos: many at once."""
        self.array.flush()
        os.fsync(self.array.fileno())
        with open(self.path, "a") as file:
            file.writelines(line.model_dump_json() + "\n" for line in self.waiting)
        self.waiting, self.due = [], time.monotonic() + SYNC_SECONDS
