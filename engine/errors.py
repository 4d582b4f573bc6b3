"""Mistakes a user can make: one line and exit code 2 instead of a traceback."""

from __future__ import annotations

import errno
import os
import re
import signal
import sys
from argparse import ArgumentTypeError
from collections.abc import Callable
from importlib.util import find_spec
from typing import Any

from dataset.types import DataError
from models.errors import OptionError
from models.objective import NonFiniteLoss

SHOWN = 200                  # characters of a user's value that a message repeats
FULL = (errno.ENOSPC, errno.EDQUOT)
CLOSED = (errno.EACCES, errno.EPERM, errno.EROFS)
NO_MEMORY = re.compile(r"out of memory|allocate memory|not enough memory|Storage size calculation overflowed")


class UsageError(Exception):
    """A problem of configuration, checkpoint or environment: what is wrong and what to do."""


def require(purpose: str, *modules: str) -> None:
    """End in one line where a module of requirements/PURPOSE.txt is not installed."""
    missing = [module for module in modules if find_spec(module) is None]
    if missing:
        print(f"error: {', '.join(missing)}: not installed; pip install -r requirements/{purpose}.txt", file=sys.stderr)
        sys.exit(2)


def shown(value: Any) -> str:
    """`value` as a message repeats it."""
    text = repr(value)
    return text if len(text) <= SHOWN else f"{text[:SHOWN]}... ({len(text):,} characters)"


def positive(text: str) -> int:
    """The type of a command-line option: a whole number from 1 to a million."""
    if not (text.isdecimal() and len(text) < 8 and 1 <= int(text) <= 1_000_000):
        raise ArgumentTypeError(f"expected a whole number from 1 to 1,000,000, got {shown(text)}")
    return int(text)


def run_guarded(main: Callable[[], None], resumable: bool = False) -> None:
    """Run `main`; turn the errors a user can cause into one line on stderr and exit code 2.

    `resumable`: the same command goes on where it was interrupted. SIGTERM acts like Ctrl-C, save
    under torchrun, whose processes may sit in a collective and could not react.
    """
    alone = int(os.environ.get("WORLD_SIZE", 1)) == 1
    if hasattr(sys.stdout, "reconfigure"):       # a name that no terminal can print must not end a run
        sys.stdout.reconfigure(errors="backslashreplace")
    if alone:
        signal.signal(signal.SIGTERM, interrupt)
    try:
        main()
    except (UsageError, DataError, OptionError, NonFiniteLoss) as error:
        message = " ".join(str(error).split())
    except BrokenPipeError:      # the reader of the output has seen enough: `... | head`
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return
    except OSError as error:     # full disk, unwritable folder, vanished file
        where = f" ({shown(str(error.filename))})" if error.filename else ""
        message = f"{error.strerror or error}{where}{advice(error)}"
    except (MemoryError, RuntimeError) as error:
        if isinstance(error, RuntimeError) and not NO_MEMORY.search(str(error)):
            raise
        message = "out of memory; choose a smaller batch or a smaller model, or end other programs"
    except KeyboardInterrupt as stop:
        print("\ninterrupted" + "; the same command continues with what is not finished" * resumable, file=sys.stderr)
        sys.exit(128 + (stop.args[0] if stop.args else signal.SIGINT))
    else:
        return
    print(f"error: {message}", file=sys.stderr, flush=True)
    # Under torchrun others may sit in a collective; leaving at once lets the launcher end them.
    sys.exit(2) if alone else os._exit(2)


def interrupt(number: int, _frame: object) -> None:
    raise KeyboardInterrupt(number)


def advice(error: OSError) -> str:
    """What to do about a full disk, or a file that this user may not write or read."""
    if error.errno in FULL:
        return ". Free some space and run the same command again"
    if error.errno not in CLOSED:
        return ""
    unreadable = os.path.isfile(error.filename or "") and not os.access(error.filename, os.R_OK)
    return ". Make it readable" if unreadable else ". Choose a folder that can be written"
