"""One process at a time in a folder that is being written."""

from __future__ import annotations

import fcntl
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from dataset.files import refuse_special
from dataset.types import DataError


@contextmanager
def alone_in(folder: Path, doing: str) -> Iterator[None]:
    """Hold `folder`, made if need be, for this process; DataError where another one holds it.

    `doing` completes "another process is ... FOLDER". The operating system lets go of the lock when
    the process ends, however it ends, so the lock file itself may stay.
    """
    folder.mkdir(parents=True, exist_ok=True)
    refuse_special(folder / ".lock")
    with open(folder / ".lock", "a") as handle:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise DataError(f"another process is {doing} {folder}; wait for it, or give another folder") from error
        except OSError as error:         # some network disks have no locks; to refuse them would help nobody
            print(f"note: {folder} cannot be locked ({error.strerror}); let one process at a time write there")
        yield
