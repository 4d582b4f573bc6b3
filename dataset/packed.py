"""All features of one modality in one memory-mapped array, holding the segments used: smaller, and one file to open.

FOLDER/NAME.npy is an array (videos, T, ...) and FOLDER/NAME.json its index: the videos by row, the stride, the shape and
type, where it came from, and the SHA-256 of every video. Float16 is the default; features after a ReLU lose nothing that
training notices, and half the disk.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Annotated, Any, BinaryIO, Literal

import numpy as np
from pydantic import BaseModel, ConfigDict, Field, NonNegativeInt, PositiveInt, ValidationError, model_validator

from dataset.files import write_json, write_jsonl
from dataset.store import FeatureStore, Layout, refuse_non_finite
from dataset.types import DataError

FORMAT = 1


class PackedStore:
    """The interface of FeatureStore over a packed array; row i of a video is its segment i."""

    def __init__(self, folder: Path, name: str, stride: int, layout: Layout = "map") -> None:
        self.folder, self.path = folder, folder / f"{name}.npy"
        index = read_index(folder / f"{name}.json")
        if layout != index.layout:
            raise DataError(f"{self.path} was packed from files of layout {index.layout}; set dataset.visual_layout="
                            f"{index.layout}, or pack again with --visual-layout {layout}")
        self.stride = index.stride
        if stride != self.stride:
            raise DataError(f"{self.path} was packed with stride {self.stride}, dataset.stride={stride} is asked for; set "
                            f"dataset.stride={self.stride} or pack again")
        self.row = index.rows
        try:
            array = self.array
        except Exception as error:      # a damaged header makes numpy raise nearly anything
            raise DataError(f"packed features {self.path} are missing, cut off or damaged ({error}); pack again") from error
        if array.shape != tuple(index.shape) or array.dtype != index.dtype:
            raise DataError(f"packed features {self.path} have shape {list(array.shape)} and type {array.dtype}, their "
                            f"index says {index.shape} and {index.dtype}; pack again")
        self.segments, self.shape, self.dtype = array.shape[1], array.shape[2:], array.dtype
        self.rows = self.segments

    @cached_property
    def array(self) -> np.ndarray:
        """(videos, T, ...), memory-mapped."""
        return np.load(self.path, mmap_mode="r", allow_pickle=False)

    def has(self, video_id: str) -> bool:
        return video_id in self.row

    def stored_rows(self, seconds: int) -> int:
        """How many of a video's first `seconds` are among the rows here."""
        return -(-seconds // self.stride)

    def check(self, video_id: str) -> np.ndarray:
        """The rows of a video, still mapped."""
        if video_id not in self.row:
            raise DataError(f"packed features {self.path} do not hold video {video_id}; pack again, or set "
                            "dataset.skip_missing=true")
        return self.array[self.row[video_id]]

    def read(self, video_id: str, rows: slice | int) -> np.ndarray:
        """The rows asked for, finite, in the type of the store."""
        values = np.array(self.check(video_id)[rows])
        refuse_non_finite(values, f"packed features of {video_id} in {self.path}")
        return values

    def read_segments(self, video_id: str) -> np.ndarray:
        """(T, C) or (T, C, H, W)."""
        return self.read(video_id, slice(None))


class Index(BaseModel):
    """What FOLDER/NAME.json must hold; `rows` gives each video its row, a video without one could not be read."""

    model_config = ConfigDict(strict=True)

    format: Literal[FORMAT]
    shape: Annotated[list[PositiveInt], Field(min_length=3, max_length=5)]      # videos, T, C or C, H, W
    dtype: Literal["float16", "float32"]
    stride: PositiveInt
    source: str
    source_rows: PositiveInt
    layout: Layout = "map"
    listing: str
    rows: Annotated[dict[str, NonNegativeInt], Field(min_length=1)]
    sha256: dict[str, str]

    @model_validator(mode="after")
    def agrees_with_itself(self) -> Index:
        rows = set(self.rows.values())
        if len(rows) < len(self.rows) or max(rows) >= self.shape[0]:
            raise ValueError("two videos share a row, or a row lies outside the array")
        if self.rows.keys() != self.sha256.keys():
            raise ValueError("rows and sha256 name different videos")
        if self.shape[1] != -(-self.source_rows // self.stride):
            raise ValueError(f"{self.source_rows} rows with stride {self.stride} are not {self.shape[1]} segments")
        return self


def read_index(path: Path) -> Index:
    try:
        return Index.model_validate_json(path.read_bytes())
    except FileNotFoundError as error:
        raise DataError(f"{path} does not exist; make packed features with python scripts/pack_features.py ROOT, or set "
                        "dataset.features=files") from error
    except OSError as error:
        raise DataError(f"index {path} cannot be read: {error.strerror}") from error
    except ValidationError as error:
        first = error.errors()[0]
        field = ".".join(map(str, first["loc"])) or "content"
        raise DataError(f"index {path} is damaged ({field}: {first['msg']}); pack again") from error


@dataclass
class Packing:
    """One modality on its way into one array.

    `videos` are those found in the source folder; `failed` gives the reason for each that could not be read. The array is
    filled under a temporary name with plain writes (mapped pages would count as memory), each video is read back and
    compared, and a line in a journal says that it is done, so a killed run continues after the last whole video.
    """

    source: FeatureStore
    folder: Path
    name: str
    dtype: Literal["float16", "float32"] = "float16"
    failed: dict[str, str] = field(default_factory=dict)

    @cached_property
    def videos(self) -> list[str]:
        return self.source.videos

    @property
    def shape(self) -> tuple[int, ...]:
        return len(self.videos), self.source.segments, *self.source.shape

    @property
    def bytes_per_video(self) -> int:
        return int(np.prod(self.shape[1:])) * np.dtype(self.dtype).itemsize

    @property
    def temporary(self) -> Path:
        return self.folder / f".{self.name}.npy.partial"

    @property
    def journal(self) -> Path:
        return self.folder / f".{self.name}.journal"

    @property
    def settings(self) -> dict[str, Any]:
        listing = hashlib.sha256("\n".join(self.videos).encode()).hexdigest()
        return {"format": FORMAT, "shape": list(self.shape), "dtype": self.dtype, "stride": self.source.stride,
                "source": str(self.source.folder), "source_rows": self.source.rows,
                "layout": self.source.layout, "listing": listing}

    def run(self) -> Iterator[str]:
        """Pack what is left, yielding each video as it is done; at the end the array and its index get their names."""
        self.folder.mkdir(parents=True, exist_ok=True)
        done = self.resume()
        with open(self.temporary, "r+b") as array, open(self.journal, "a") as journal:
            start = array.seek(0, os.SEEK_END) - len(self.videos) * self.bytes_per_video
            for row, video in enumerate(self.videos):
                if video not in done:
                    try:
                        done[video] = self.pack_video(array, start + row * self.bytes_per_video, video)
                    except DataError as error:
                        self.failed[video] = str(error)
                        continue
                    journal.write(json.dumps({"video": video, "sha256": done[video]}) + "\n")
                    journal.flush()
                yield video
            os.fsync(array.fileno())
        if not done:
            reason = next(iter(self.failed.values()), "no file")
            raise DataError(f"none of the {len(self.videos)} files in {self.source.folder} can be packed; first: {reason}")
        rows = {video: row for row, video in enumerate(self.videos) if video in done}
        index = self.folder / f"{self.name}.json"
        index.unlink(missing_ok=True)         # killed here, there is no store rather than one with the index of another
        os.replace(self.temporary, self.folder / f"{self.name}.npy")
        write_json(index, {**self.settings, "rows": rows, "sha256": done})
        self.journal.unlink()

    def resume(self) -> dict[str, str]:
        """Digests of the videos that an interrupted run finished; a run with other settings starts afresh."""
        if self.journal.is_file() and self.temporary.is_file():
            lines = list(whole_lines(self.journal.read_text().splitlines()))
            if lines and lines[0] == self.settings:
                write_jsonl(self.journal, lines)          # without the line that the kill left unfinished
                return {line["video"]: line["sha256"] for line in lines[1:]}
        with open(self.temporary, "wb") as file:
            header = {"descr": np.lib.format.dtype_to_descr(np.dtype(self.dtype)), "fortran_order": False,
                      "shape": self.shape}
            np.lib.format.write_array_header_2_0(file, header)
            file.truncate(file.tell() + len(self.videos) * self.bytes_per_video)
        write_jsonl(self.journal, [self.settings])
        return {}

    def pack_video(self, array: BinaryIO, offset: int, video: str) -> str:
        """Write one video's segments at `offset`, read them back, and return their digest."""
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
        return hashlib.sha256(data).hexdigest()


def whole_lines(lines: list[str]) -> Iterator[dict[str, Any]]:
    for line in lines:
        try:
            yield json.loads(line)
        except ValueError:
            return


def verify(folder: Path, name: str) -> Iterator[tuple[str, bool]]:
    """Every video of a packed array, and whether its bytes still have the digest of the index."""
    index = read_index(folder / f"{name}.json")
    store = PackedStore(folder, name, index.stride, index.layout)
    for video, digest in index.sha256.items():
        yield video, hashlib.sha256(store.check(video).tobytes()).hexdigest() == digest
