"""Give the commands random input and see how they end: python scripts/fuzz.py --minutes 30

A case damages one thing that a user can type or a file can hold, and runs the command that reads
it, in this process. A command ends well with exit code 0, or with 2 and one error line (the check
of a data set also with 1). Every other end, and what takes longer than a minute, is kept in a
folder of --out with the arguments in case.json; then the exit code of this script is 1. To repeat a
case rename its folder to `case`.
"""

from __future__ import annotations

import argparse
import contextlib
import io
import json
import os
import random
import resource
import runpy
import shutil
import signal
import sys
import tempfile
import time
import traceback
from collections import Counter
from collections.abc import Iterable
from itertools import count, takewhile
from pathlib import Path

from tabulate import tabulate

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))
os.environ["HF_HUB_OFFLINE"] = "1"       # read when transformers is imported: no case looks for anything elsewhere

from engine.errors import run_guarded
from scripts.study.damage import Damage
from scripts.study.fuzz_cases import KINDS, Command
from scripts.study.fuzz_template import make_template

HANG = 60                    # seconds that no case may take
MEMORY = 12 * 2 ** 30        # bytes of address space: what asks for more must end in one line, not in the killer's


class Hang(BaseException):
    """A case took too long."""


def link(source: str, target: str) -> None:
    """Cases share the files that commands replace and never change in place."""
    shutil.copy(source, target) if "packed" in source else os.link(source, target)


def run(command: Command) -> tuple[int | str, str]:
    """Exit code, or the name of what was raised, and all that the command printed."""
    output, arguments = io.StringIO(), sys.argv
    sys.argv = [str(ROOT / command[0]), *command[1:]]
    code: int | str = 0
    try:
        with contextlib.redirect_stdout(output), contextlib.redirect_stderr(output), contextlib.chdir(Path.cwd()):
            runpy.run_path(sys.argv[0], run_name="__main__")
    except SystemExit as stop:
        code = stop.code or 0
    except (Exception, Hang) as error:
        code = type(error).__name__
        output.write(traceback.format_exc())
    finally:
        sys.argv = arguments
    return code, output.getvalue()


def is_well(command: Command, code: int | str, output: str) -> bool:
    errors = sum(line.startswith("error: ") or ": error: " in line for line in output.splitlines())
    if code == 1:
        return command[0] == "scripts/check_dataset.py"
    return "Traceback" not in output and (code == 0 or code == 2 and errors == 1)


def one_case(kind: str, rng: random.Random, template: Path, folder: Path) -> tuple[int | str, bool]:
    """How the case ended, and whether well; its folder stays if not."""
    shutil.copytree(template, folder, copy_function=link)
    command = KINDS[kind](Damage(rng, folder))
    record = {"kind": kind, "command": command}
    (folder / "case.json").write_text(json.dumps(record))       # now, for a case that ends this process
    signal.setitimer(signal.ITIMER_REAL, HANG)
    with contextlib.chdir(folder):       # relative paths among the texts lead nowhere else
        code, output = run(command)
    signal.setitimer(signal.ITIMER_REAL, 0)
    well = is_well(command, code, output)
    if well:
        shutil.rmtree(folder)
    else:
        (folder / "case.json").write_text(json.dumps(record | {"code": code, "output": output[-5000:]}, indent=2))
    return code, well


def fuzz(out: Path, seed: int, cases: Iterable[int], kinds: list[str]) -> tuple[Counter, list[Path]]:
    """Run `cases` by number: how often each kind ended with which code, and what ended badly.

    Every case runs in the folder `case`, so that the paths in the files it starts from are right.
    """
    def stop(*_: object) -> None:
        raise Hang

    ends, bad, folder = Counter(), [], out / "case"
    shutil.rmtree(folder, ignore_errors=True)
    previous = signal.signal(signal.SIGALRM, stop)
    with tempfile.TemporaryDirectory(dir=out) as template:
        make_template(folder, run)
        shutil.move(folder, f"{template}/case")
        for number in cases:
            kind = kinds[number % len(kinds)]
            code, well = one_case(kind, random.Random(f"{seed} {number}"), Path(template, "case"), folder)
            ends[kind, code] += 1
            if not well:
                bad.append(folder.rename(out / f"{seed}-{number}"))
    signal.signal(signal.SIGALRM, previous)
    return ends, bad


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--minutes", type=float, default=1.0, help="default 1")
    parser.add_argument("--seed", type=int, default=0, help="of the random input (default 0)")
    parser.add_argument("--kinds", nargs="+", choices=KINDS, default=list(KINDS), help="default: all")
    parser.add_argument("--out", type=Path, default=Path("fuzz"), help="for what did not end well (default fuzz)")
    return parser.parse_args()


def main() -> None:
    options = parse()
    options.out.mkdir(parents=True, exist_ok=True)
    resource.setrlimit(resource.RLIMIT_AS, (MEMORY, MEMORY))
    end = time.monotonic() + 60 * options.minutes
    cases = takewhile(lambda _: time.monotonic() < end, count())
    ends, bad = fuzz(options.out.resolve(), options.seed, cases, options.kinds)
    print(tabulate([(kind, code, n) for (kind, code), n in sorted(ends.items(), key=str)],
                   headers=["input", "exit code", "cases"]))
    for folder in bad:
        print(f"did not end well: {folder}")
    sys.exit(1 if bad else 0)


if __name__ == "__main__":
    run_guarded(main)
