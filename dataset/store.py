"""Features on disk, one `.npy` per video and modality, of which only the rows used are read."""

from __future__ import annotations

import math
import os
from collections.abc import Iterator
from functools import cached_property
from pathlib import Path
from typing import Annotated, Literal

import numpy as np
import torch
from pydantic import Field

from dataset.files import refuse_special
from dataset.types import DataError

FLOATS = (np.float16, np.float32)
DAY = 86_400                             # seconds, the longest clip and the largest stride
FEW, USUAL, MANY = 4, 10, 20             # segments: a warning below, those of AVST, more than is ever suggested
Stride = Annotated[int, Field(ge=1, le=DAY)]
Layout = Literal["map", "cls_first"]     # of a picture: channels x height x width, or tokens x channels, frame first


class FeatureStore:
    """One modality. A file holds one row per second; row i * `stride` is segment i.

    `shape` (C,) or (C, H, W) is taken from the first file by name and asked of all others; with
    `skip_damaged` from the first one that can be read. The number of rows is that of the longest
    file: what a shorter one lacks is absent. Files of `layout` cls_first hold (seconds, N, C),
    token 0 of which is the frame; they are given out as maps (C, N, 1).
    """

    def __init__(self, folder: Path, stride: int, dimensions: int, skip_damaged: bool = False,
                 layout: Layout = "map") -> None:
        self.folder, self.stride, self.layout = folder, stride, layout
        if not folder.is_dir():
            raise DataError(f"feature folder {folder} does not exist; it must hold one VIDEO_ID.npy per video")
        videos = self.videos
        if not videos:
            raise DataError(f"feature folder {folder} holds no .npy file; it must hold one VIDEO_ID.npy per video")
        for first in videos:
            try:
                array = self.open_first(folder / f"{first}.npy", dimensions)
                break
            except DataError:
                if not skip_damaged or first == videos[-1]:
                    raise
        self.first = first
        self.file_shape, self.dtype = array.shape[1:], array.dtype
        self.shape = as_maps(array, layout).shape[1:]
        self.rows = self.source_rows = max(self.lengths())
        self.known_rows: dict[str, int] = {}

    @property
    def videos(self) -> list[str]:
        """Those with a file, in order of name; hidden files are temporary files or metadata."""
        return sorted(name.removesuffix(".npy") for name in self.files
                      if name.endswith(".npy") and name[0] != "." and name.isprintable())

    @property
    def segments(self) -> int:
        return -(-self.rows // self.stride)

    @cached_property
    def files(self) -> dict[str, int]:
        """Names in the folder and their bytes, listed at once since network disks are slow."""
        with os.scandir(self.folder) as entries:
            return {entry.name: bytes_of(entry) for entry in entries}

    def lengths(self) -> Iterator[int]:
        """Rows of one file of every size: one size, one length. Unreadable ones fail later."""
        for video in {self.files[f"{video}.npy"]: video for video in reversed(self.videos)}.values():
            try:
                array = self.open(self.folder / f"{video}.npy")
            except DataError:
                continue
            if array.shape[1:] == self.file_shape:
                yield len(array)

    def has(self, video_id: str) -> bool:
        return f"{video_id}.npy" in self.files

    def open_first(self, path: Path, dimensions: int) -> np.ndarray:
        """The file that gives the shape: one axis of seconds and `dimensions` others."""
        array = self.open(path)
        tokens = self.layout == "cls_first"
        if array.ndim != (3 if tokens else 1 + dimensions) or not array.size or tokens and array.shape[1] < 2:
            axes = "seconds x tokens x channels, two tokens or more" if tokens else "seconds x channels"
            axes += " x height x width (dataset.visual_layout=map)" * (not tokens and dimensions == 3)
            raise DataError(f"feature file {path} has shape {list(array.shape)}; expected {axes}, none of them 0")
        return array

    def open(self, path: Path) -> np.ndarray:
        """The file as a memory map, its header checked; nothing is unpickled."""
        refuse_special(path)
        try:
            array = np.load(path, mmap_mode="r", allow_pickle=False)
        except FileNotFoundError as error:
            raise DataError(f"feature file {path} does not exist; extract or download the features of this "
                            "video") from error
        except Exception as error:      # a damaged header makes numpy raise nearly anything, tokenizer errors included
            raise DataError(f"feature file {path} is truncated or not an .npy array of numbers; extract or download it "
                            "again") from error
        if not isinstance(array, np.ndarray) or array.dtype not in FLOATS:
            content = getattr(array, "dtype", "an archive")
            raise DataError(f"feature file {path} holds {content}; expected an array of float32 or float16")
        return array

    def check(self, video_id: str) -> np.ndarray:
        """The file of a video, mapped, with the shape of the others and at most `rows` rows."""
        path = self.folder / f"{video_id}.npy"
        array = self.open(path)
        if array.shape[1:] != self.file_shape or not 0 < len(array) <= self.rows:
            raise DataError(f"feature file {path} has shape {list(array.shape)}; expected "
                            f"{[self.rows, *self.file_shape]} like the others in its folder, or fewer rows")
        self.known_rows[video_id] = len(array)
        return array

    def rows_of(self, video_id: str) -> int:
        """How many rows there are of a video; its file is opened once for that."""
        return self.known_rows.get(video_id) or len(self.check(video_id))

    def segments_of(self, video_id: str) -> int:
        """How many of its T segments a video has, from the start; the others are absent."""
        return -(-self.rows_of(video_id) // self.stride)

    def read(self, video_id: str, rows: slice | int) -> np.ndarray:
        """The rows asked for, finite, in the type of the store."""
        values = np.array(self.check(video_id)[rows], dtype=self.dtype)
        refuse_non_finite(values, f"feature file {self.folder / video_id}.npy")
        return as_maps(values, self.layout)

    def read_segments(self, video_id: str) -> np.ndarray:
        """(T, C) or (T, C, H, W): every `stride`-th row, zeros where a video has ended."""
        values = self.read(video_id, slice(None, None, self.stride))
        lacking = self.segments - len(values)
        return np.pad(values, [(0, lacking)] + [(0, 0)] * len(self.shape)) if lacking else values

    def stored_rows(self, seconds: int) -> int:
        """How many of a video's first `seconds` are among the rows here: all."""
        return seconds


def bytes_of(entry: os.DirEntry) -> int:
    """Of a file; 0 for anything else, and for what is gone by now."""
    try:
        return entry.stat().st_size if entry.is_file() else 0
    except OSError:
        return 0


def as_maps(values: np.ndarray, layout: Layout) -> np.ndarray:
    """Tokens (..., N, C) of `layout` cls_first as a map (..., C, N, 1), a view; a map as it is."""
    return values.swapaxes(-1, -2)[..., None] if layout == "cls_first" else values


def check_same_clip(audio, visual) -> None:
    """DataError when the longest videos of the two stores do not have equally many rows."""
    if audio.rows != visual.rows:
        raise DataError(f"{audio.folder} has {audio.rows} rows per video of sound, {visual.folder} has {visual.rows} "
                        "of picture; both must have one row per second of the same clip")


def note_on_segments(rows: int, stride: int, option: str) -> str | None:
    """Why every `stride`-th of `rows` rows is an odd choice, and what to set `option` to; None
    where it is not.

    Four segments or more, each of equally many rows, are no odd choice. Suggested is the number of
    segments nearest to the ten of AVST, those preferred that leave no row over.
    """
    segments, over = -(-rows // stride), rows % stride
    if segments >= FEW and not over:
        return None
    fitting = [s for s in range(1, rows + 1) if FEW <= -(-rows // s) <= MANY] or [1]
    better = min(fitting, key=lambda s: (rows % s > 0, abs(-(-rows // s) - USUAL)))
    few = f", fewer than {FEW}" if segments < FEW else ""
    last = f", the last one of {over} rows and the others of {stride}" if over and segments > 1 else ""
    advice = f"; {option}{better} uses {-(-rows // better)}" if better != stride else ""
    return f"warning: of {rows} rows per video {option}{stride} uses {segments} as segments{few}{last}{advice}"


def refuse_non_finite(values: np.ndarray, what: str) -> None:
    """DataError naming `what` when there is NaN or infinity in it."""
    total = torch.from_numpy(values).sum(dtype=torch.float32)     # shows any NaN or infinity, far cheaper than a mask
    if not math.isfinite(total) and not np.isfinite(values).all():
        raise DataError(f"{what} holds NaN or infinity; extract it again, or leave it out with "
                        "dataset.skip_missing=true after deleting it")
