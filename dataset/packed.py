"""All features of one modality in one memory-mapped array, holding the segments used: smaller, and
one file to open.

FOLDER/NAME.npy is an array (videos, T, ...) and FOLDER/NAME.json its index: the videos by row, the
stride, the shape and type, where it came from, and the SHA-256 of every video. Float16 is the
default; features after a ReLU lose nothing that training notices, and half the disk.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Literal

import numpy as np
from pydantic import BaseModel, ConfigDict, Field, NonNegativeInt, PositiveInt, ValidationError, model_validator

from dataset.files import refuse_special
from dataset.store import Layout, refuse_non_finite
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
            raise DataError(f"{self.path} was packed with stride {self.stride}, dataset.stride={stride} is asked for; "
                            f"set dataset.stride={self.stride} or pack again")
        refuse_special(self.path)
        self.row, self.present, self.source_rows = index.rows, index.present, index.source_rows
        try:
            array = self.array = np.load(self.path, mmap_mode="r", allow_pickle=False)          # (videos, T, ...)
        except Exception as error:      # a damaged header makes numpy raise nearly anything
            raise DataError(f"packed features {self.path} are missing, cut off or damaged ({error}); pack "
                            "again") from error
        if array.shape != tuple(index.shape) or array.dtype != index.dtype:
            raise DataError(f"packed features {self.path} have shape {list(array.shape)} and type {array.dtype}, their "
                            f"index has {index.shape} and {index.dtype}; pack again")
        self.segments, self.shape, self.dtype = array.shape[1], array.shape[2:], array.dtype
        self.rows = self.segments

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

    def segments_of(self, video_id: str) -> int:
        """How many of its T segments a video has, from the start; the others are absent."""
        return self.present.get(video_id, self.segments)

    rows_of = segments_of

    def read(self, video_id: str, rows: slice | int) -> np.ndarray:
        """The rows asked for, finite, in the type of the store."""
        values = np.array(self.check(video_id)[rows])
        refuse_non_finite(values, f"packed features of {video_id} in {self.path}")
        return values

    def read_segments(self, video_id: str) -> np.ndarray:
        """(T, C) or (T, C, H, W)."""
        return self.read(video_id, slice(None))


class Index(BaseModel):
    """What FOLDER/NAME.json must hold.

    `rows` gives each video its row, a video without one could not be read; `present` the number of
    segments of those that have fewer than T.
    """

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
    present: dict[str, PositiveInt] = {}

    @model_validator(mode="after")
    def agrees_with_itself(self) -> Index:
        rows = set(self.rows.values())
        if len(rows) < len(self.rows) or max(rows) >= self.shape[0]:
            raise ValueError("two videos share a row, or a row lies outside the array")
        if self.rows.keys() != self.sha256.keys():
            raise ValueError("rows and sha256 name different videos")
        if not self.present.keys() <= self.rows.keys() or any(n >= self.shape[1] for n in self.present.values()):
            raise ValueError("present names other videos than rows, or as many segments as the array has")
        if self.shape[1] != -(-self.source_rows // self.stride):
            raise ValueError(f"{self.source_rows} rows with stride {self.stride} are not {self.shape[1]} segments")
        return self


def read_index(path: Path) -> Index:
    refuse_special(path)
    try:
        return Index.model_validate_json(path.read_bytes())
    except FileNotFoundError as error:
        raise DataError(f"{path} does not exist; make packed features with python scripts/pack_features.py ROOT, or "
                        "set dataset.features=files") from error
    except OSError as error:
        raise DataError(f"index {path} cannot be read: {error.strerror}") from error
    except ValidationError as error:
        first = error.errors()[0]
        field = ".".join(map(str, first["loc"])) or "content"
        raise DataError(f"index {path} is damaged ({field}: {first['msg']}); pack again") from error


def verify(folder: Path, name: str) -> Iterator[tuple[str, bool]]:
    """Every video of a packed array, and whether its bytes still have the digest of the index."""
    index = read_index(folder / f"{name}.json")
    store = PackedStore(folder, name, index.stride, index.layout)
    for video, digest in index.sha256.items():
        yield video, hashlib.sha256(store.check(video).tobytes()).hexdigest() == digest
