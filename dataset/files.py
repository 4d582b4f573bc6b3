"""Files that are whole or not there: written under a temporary name, then renamed."""

from __future__ import annotations

import json
import os
import re
import shutil
import socket
import stat
import zlib
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

from dataset.types import DataError

MACHINE = f"{zlib.crc32(socket.gethostname().encode()):08x}"
LEFT_HERE = re.compile(rf"\..*\.{MACHINE}\.(\d{{1,9}})\.tmp")


def temporary_beside(path: Path) -> Path:
    """A hidden name in the folder of `path`, with the machine and the process that write there."""
    return path.with_name(f".{path.name[:50]}.{MACHINE}.{os.getpid()}.tmp")


def remove_leftovers(folder: Path) -> None:
    """Delete what processes of this machine that are gone left in `folder` under temporary names.

    At the start of a command: what has this process's number is of an earlier one.
    """
    for path in folder.glob(".*.tmp"):
        left = LEFT_HERE.fullmatch(path.name)
        if left and (int(left[1]) == os.getpid() or not is_running(int(left[1]))):
            shutil.rmtree(path, ignore_errors=True) if path.is_dir() else path.unlink(missing_ok=True)


def is_running(process: int) -> bool:
    """Whether there is a process of this number; signal 0 asks and does nothing."""
    try:
        os.kill(process, 0)
    except (ProcessLookupError, OverflowError):
        return False
    except PermissionError:              # somebody else's
        pass
    return True


def write_whole(path: Path, write: Callable[[Path], None]) -> None:
    """Let `write` fill a temporary file beside `path`, flush it to disk, rename it to `path`.

    An OSError names `path`, not the temporary file.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = temporary_beside(path)
    try:
        write(temporary)
        with open(temporary, "rb+") as handle:
            os.fsync(handle.fileno())
        os.replace(temporary, path)
    except OSError as error:
        error.filename, error.filename2 = str(path), None
        raise
    finally:
        temporary.unlink(missing_ok=True)


def write_text(path: Path, text: str) -> None:
    write_whole(path, lambda temporary: temporary.write_text(text, encoding="utf-8"))


def write_json(path: Path, value: Any) -> None:
    """ValueError for NaN and infinity, which JSON has not."""
    write_text(path, json.dumps(value, indent=2, allow_nan=False) + "\n")


def write_jsonl(path: Path, records: Iterable[dict[str, Any]]) -> None:
    """As `write_json`, one record a line."""
    write_text(path, "".join(json.dumps(record, allow_nan=False) + "\n" for record in records))


def is_special(path: Path) -> bool:
    """Whether `path` is a pipe, a socket or a device: reading it may never end."""
    try:
        mode = path.stat().st_mode
    except OSError:                  # whoever opens it reports that it is not there
        return False
    return not stat.S_ISREG(mode) and not stat.S_ISDIR(mode)


def refuse_special(path: Path) -> None:
    """DataError naming `path` when it is special."""
    if is_special(path):
        raise DataError(f"{path} is a pipe, a socket or a device; give an ordinary file")
