"""Videos decoded in processes of their own: a file that kills its decoder costs that file alone."""

from __future__ import annotations

import multiprocessing
import os
import signal
import threading
from collections import deque
from collections.abc import Iterator
from multiprocessing.connection import Connection, wait
from pathlib import Path

from dataset.extract.media import Clip, MediaError, read_clip

Video = tuple[str, Path]                 # its name and its file


def decoded(videos: list[Video], seconds: list[int], workers: int) -> Iterator[tuple[str, Clip | str]]:
    """Each video's name with its clip, or with the reason why there is none, as they get done.

    Every one of the `workers` holds one decoded clip at most until it is taken; without workers
    this process decodes.
    """
    if not workers:
        yield from ((name, decode(path, seconds)) for name, path in videos)
        return
    left, crew = deque(videos), []
    try:
        while left and len(crew) < workers:
            crew.append(Worker(seconds))
            crew[-1].give(left.popleft())
        while crew:
            ready = wait([worker.line for worker in crew])
            for worker in [w for w in crew if w.line in ready]:
                result = worker.take()
                if left:                 # before the result is used, so that decoding goes on meanwhile
                    worker.give(left.popleft())
                else:
                    crew.remove(worker)
                    worker.end()
                yield result
    finally:
        for worker in crew:
            worker.end()


def decode(path: Path, seconds: list[int]) -> Clip | str:
    try:
        return read_clip(path, seconds)
    except MediaError as error:
        return str(error)


class Worker:
    """A process that decodes videos, and the line to it; a new one follows one that died."""

    def __init__(self, seconds: list[int]) -> None:
        self.seconds = seconds
        self.start()

    def start(self) -> None:
        self.line, theirs = multiprocessing.Pipe()
        self.process = multiprocessing.Process(target=work, args=(theirs, self.seconds), daemon=True)
        self.process.start()
        theirs.close()                   # else the line would never end

    def give(self, video: Video) -> None:
        if not self.process.is_alive():
            self.start()
        self.name, path = video
        self.line.send(path)

    def take(self) -> tuple[str, Clip | str]:
        """What came of the video given last; waits for it."""
        try:
            return self.name, self.line.recv()
        except (EOFError, OSError):
            self.process.join()
            code = self.process.exitcode
            how = f"by signal {-code}, {signal.strsignal(-code)}" if code < 0 else f"with exit code {code}"
            return self.name, f"the process that decoded it ended {how}"

    def end(self) -> None:
        self.process.kill()
        self.process.join()


def work(line: Connection, seconds: list[int]) -> None:
    """Decode what the line brings, until the process that gives it ends or kills this one."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)         # Ctrl-C reaches all; the parent ends the others
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    threading.Thread(target=leave_with_parent, daemon=True).start()
    while True:
        line.send(decode(line.recv(), seconds))


def leave_with_parent() -> None:
    multiprocessing.parent_process().join()
    os._exit(1)
