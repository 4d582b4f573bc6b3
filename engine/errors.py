"""Mistakes a user can make, told in one line with exit code 2 instead of a traceback."""

from __future__ import annotations

import errno
import os
import sys
from collections.abc import Callable

from dataset.types import DataError
from models.errors import OptionError
from models.objective import NonFiniteLoss

FULL, READ_ONLY = ". Free some space and run the same command again", ". Choose a writable folder with run.root=FOLDER"
ADVICE = {errno.ENOSPC: FULL, errno.EDQUOT: FULL, errno.EACCES: READ_ONLY, errno.EPERM: READ_ONLY, errno.EROFS: READ_ONLY}


class UsageError(Exception):
    """A configuration, checkpoint or environment problem: what it is, what was expected, what to do."""


def run_guarded(main: Callable[[], None], resumable: bool = False) -> None:
    """Run `main`; turn the errors a user can cause into one line on stderr and exit code 2.

    `resumable`: the same command goes on where it was interrupted.
    """
    try:
        main()
    except (UsageError, DataError, OptionError, NonFiniteLoss) as error:
        message = " ".join(str(error).split())
    except BrokenPipeError:      # the reader of the output has seen enough: `... | head`
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return
    except OSError as error:     # full disk, unwritable folder, vanished file
        where = f" ({error.filename})" if error.filename else ""
        message = f"{error.strerror or error}{where}{ADVICE.get(error.errno, '')}"
    except KeyboardInterrupt:
        print("\ninterrupted" + "; the same command continues with what is not finished" * resumable, file=sys.stderr)
        sys.exit(130)
    else:
        return
    print(f"error: {message}", file=sys.stderr, flush=True)
    # Under torchrun the other processes may sit in a collective; leaving at once lets the launcher end them.
    os._exit(2) if int(os.environ.get("WORLD_SIZE", 1)) > 1 else sys.exit(2)
