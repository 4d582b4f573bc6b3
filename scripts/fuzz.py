"""Give the commands random input and see how they end: python scripts/fuzz.py --minutes 30

A case damages one thing that a user can type or a file can hold, and runs the command that reads
it, in this process. A command ends well with exit code 0, or with 2 and one error line (the check
of a data set also with 1). Every other end, and what takes longer than a minute, is kept in a
folder of --out with the arguments in case.json; then the exit code of this script is 1.
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
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from itertools import count, takewhile
from pathlib import Path
from typing import Any

import torch
from tabulate import tabulate

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

from dataset import build_dataset
from dataset.packing import Packing
from dataset.store import FeatureStore
from engine.config import compose
from engine.errors import UsageError, run_guarded

HANG = 60                    # seconds that no case may take
MEMORY = 12 * 2 ** 30        # bytes of address space: what asks for more must end in one line, not in the killer's
VIDEOS = {"train_videos": 4, "val_videos": 2, "test_videos": 2, "questions_per_video": 3, "channels": 8}
SHORT = ["train.epochs=1", "train.max_steps=1", "evaluate.scenarios=[complete]", "train.select_by=[complete]",
         "runtime.workers=0", "runtime.device=cpu"]
TEXTS = ["", " ", "null", "true", "-1", "0", "1", "1e999", "nan", ".inf", "9" * 30, "@home", "[complete", "{}", "[]",
         "[1]", "{a: 1}", "[&a x, *a]", "!!binary AAAA", "!!timestamp 1", "!!int x", "!!python/name:os.system x",
         "${oc.env:HOME}", "${run.root}", "${", "${train}", "\x07", "é" * 300, "\udcff", "[" * 1000, "[" * 100_000,
         "a: b: c", "..", "/", "/dev/null", "x" * 5000, "0x" + "f" * 5000, "*", "|", "%", "'", '"', "? a", "2020-01-01"]
VALUES = [None, True, -1, 0, 1, 2 ** 70, 1.5, float("nan"), float("inf"), "", "x", "\udcff", [], [[]], [None], {},
          {"x": 1}, {"name": "x"}]
TENSORS = [torch.tensor(float("nan")), torch.zeros(3), torch.full((2, 2), float("inf")), torch.zeros(0),
           torch.eye(2).to_sparse(), torch.zeros(1).expand(10 ** 9), torch.tensor([True]),
           torch.zeros(2, dtype=torch.complex64)]
Command = list[str]          # a script below ROOT and its arguments


class Hang(BaseException):
    """A case took too long."""


@dataclass
class Damage:
    """Random damage to one case's folder."""

    rng: random.Random
    folder: Path

    def any_file(self, path: Path) -> None:
        """Something else in place of the file."""
        data = path.read_bytes()
        place = self.rng.randrange(len(data) + 1)
        path.unlink()
        rest = data[place + self.rng.randrange(9):]
        kind = self.rng.choice(["cut", "bytes", "bytes", "text", "gone", "folder", "pipe", "device"])
        if kind in ("cut", "bytes"):
            junk = self.rng.randbytes(self.rng.randrange(9))
            path.write_bytes(data[:place] + (junk + rest if kind == "bytes" else b""))
        elif kind == "text":
            path.write_bytes(self.rng.choice(TEXTS).encode("utf-8", "surrogateescape"))
        elif kind == "folder":
            path.mkdir()
        elif kind == "pipe":
            os.mkfifo(path)
        elif kind == "device":
            path.symlink_to(os.devnull)

    def json_file(self, path: Path) -> None:
        """One value of a file of JSON or JSON lines replaced by another; or anything."""
        if self.rng.random() < 0.4:
            return self.any_file(path)
        lines = path.suffix == ".jsonl"
        text = path.read_text()
        content = self.inside(list(map(json.loads, text.splitlines())) if lines else json.loads(text), VALUES)
        lines = lines and isinstance(content, list)
        path.unlink()
        path.write_text("\n".join(map(json.dumps, content)) if lines else json.dumps(content))

    def checkpoint(self, path: Path) -> None:
        if self.rng.random() < 0.3:
            return self.any_file(path)
        state = torch.load(path, weights_only=True)
        path.unlink()
        torch.save(self.inside(state, [*VALUES, *TENSORS]), path)

    def inside(self, value: Any, others: list) -> Any:
        """`value` with one part, at any depth, exchanged for one of `others` or left out."""
        if not isinstance(value, dict | list) or not value or self.rng.random() < 0.1:
            return self.rng.choice(others)
        key = self.rng.choice(list(value) if isinstance(value, dict) else range(len(value)))
        if self.rng.random() < 0.1:
            del value[key]
        else:
            value[key] = self.inside(value[key], others)
        return value

    def override(self) -> str:
        options = compose(None, [])
        section = self.rng.choice(list(options))
        key = self.rng.choice([section, *(f"{section}.{name}" for name in options[section]), self.rng.choice(TEXTS)])
        return f"{key}={self.rng.choice(TEXTS)}".replace("\0", "")

    def yaml_file(self) -> Path:
        path = self.folder / "random.yaml"
        texts = [f"{self.override().replace('=', ': ', 1)}\n" for _ in range(self.rng.randrange(4))]
        text = "".join(texts) if self.rng.random() < 0.5 else self.rng.choice(TEXTS)
        path.write_bytes(text.encode("utf-8", "surrogateescape"))
        return path


def train(folder: Path, *extra: str) -> Command:
    return ["main_train.py", f"dataset.root={folder / 'data'}", "dataset=music_avqa", "dataset.stride=1",
            "method=plain", *extra, f"run.root={folder / 'runs'}", *SHORT]


def test(folder: Path, *extra: str) -> Command:
    return ["main_test.py", "--checkpoint", str(folder / "runs/r"), "--missing", "audio", *extra]


def answer(folder: Path, *extra: str) -> Command:
    weights = [f"{name}={folder / 'none'}" for name in ("vggish", "res18_14x14")]      # so that none are downloaded
    return ["scripts/answer.py", "--checkpoint", str(folder / "runs/r"), "--video", str(folder / "clip.mp4"),
            "--question", "Is there a cello?", *extra, "--weights", *weights]


def overrides(damage: Damage) -> Command:
    text, folder = damage.override(), damage.folder
    check = ["scripts/check_dataset.py", str(folder / "data"), text]
    plan = ["scripts/reproduce.py", "table4", text, "--plan", "--untimed"]
    return damage.rng.choice([train(folder, text), test(folder, text), check, plan])


def configurations(damage: Damage) -> Command:
    return train(damage.folder, str(damage.yaml_file()))


def checkpoints(damage: Damage) -> Command:
    damage.checkpoint(damage.folder / "runs/r/best.pt")
    return damage.rng.choice([test(damage.folder), answer(damage.folder, "--mute", "--blank")])


def continued(damage: Damage) -> Command:
    damage.checkpoint(damage.folder / "runs/r/last.pt")
    return [*train(damage.folder, "run.name=r"), "train.epochs=2", "train.max_steps=2"]


def results(damage: Damage) -> Command:
    damage.json_file(damage.folder / "runs/r" / damage.rng.choice(["results.json", "predictions.jsonl"]))
    return test(damage.folder)


def annotations(damage: Damage) -> Command:
    damage.json_file(damage.folder / "data/json_update" / f"avqa-{damage.rng.choice(['train', 'val', 'test'])}.json")
    check = ["scripts/check_dataset.py", str(damage.folder / "data"), "dataset.stride=1"]
    return damage.rng.choice([check, test(damage.folder), train(damage.folder, "run.name=new")])


def features(damage: Damage) -> Command:
    files = sorted((damage.folder / "data/feats").glob("*/*.npy"))
    damage.any_file(damage.rng.choice(files))
    return ["scripts/check_dataset.py", str(damage.folder / "data"), "dataset.stride=1", "--values"]


def manifests(damage: Damage) -> Command:
    damage.json_file(damage.folder / "data" / damage.rng.choice(["manifest.json", "oracle-test-complete.json"]))
    settings = [f"dataset.{key}={value}" for key, value in VIDEOS.items()]
    return ["main_train.py", "method=plain", *settings, f"dataset.root={damage.folder / 'data'}",
            f"run.root={damage.folder / 'runs'}", "run.name=new", *SHORT]


def journals(damage: Damage) -> Command:
    damage.any_file(damage.rng.choice([p for p in (damage.folder / "data/feats/packed").iterdir() if p.is_file()]))
    return ["scripts/pack_features.py", str(damage.folder / "data"), "--stride", "1"]


def clips(damage: Damage) -> Command:
    damage.any_file(damage.folder / "clip.mp4")
    return answer(damage.folder)


def words(damage: Damage) -> Command:
    option = damage.rng.choice(["--question", "--top", "--device", "--video"])
    share, text = damage.rng.choice(["--ratio", "--segments"]), damage.rng.choice(TEXTS)
    asked = answer(damage.folder, "--mute", "--blank", option, text)
    return damage.rng.choice([asked, test(damage.folder, share, text)])


KINDS: dict[str, Callable[[Damage], Command]] = {kind.__name__: kind for kind in (
    overrides, configurations, checkpoints, continued, results, annotations, features, manifests, journals, clips,
    words)}


def make_template(folder: Path) -> None:
    """What every case starts from: data, a run on them, an interrupted packing and a clip."""
    from dataset.extract.example import Example, write_video

    data = folder / "data"
    built = build_dataset({"name": "synthetic", "root": str(data), **VIDEOS})
    (data / "oracle-test-complete.json").write_text(json.dumps([True] * len(built.questions("test"))))
    code, output = run(train(folder, "run.name=r"))
    if code:
        raise UsageError(f"the run that cases start from failed: {output}")
    for name, place, dimensions in (("audio", "vggish", 1), ("visual", "res18_14x14", 3)):
        next(Packing(FeatureStore(data / "feats" / place, 1, dimensions), data / "feats/packed", name).run())
    write_video(folder / "clip.mp4", Example(seconds=1))


def link(source: str, target: str) -> None:
    """Cases share the files that commands replace and never change in place."""
    shutil.copy(source, target) if "packed" in source else os.link(source, target)


def run(command: Command) -> tuple[int | str, str]:
    """Exit code, or the name of what was raised, and all that the command printed."""
    output, arguments = io.StringIO(), sys.argv
    sys.argv = [str(ROOT / command[0]), *command[1:]]
    code: int | str = 0
    try:
        with contextlib.redirect_stdout(output), contextlib.redirect_stderr(output):
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
    code, output = run(command)
    signal.setitimer(signal.ITIMER_REAL, 0)
    well = is_well(command, code, output)
    if well:
        shutil.rmtree(folder)
    else:
        (folder / "case.json").write_text(json.dumps(record | {"code": code, "output": output[-5000:]}, indent=2))
    return code, well


def fuzz(out: Path, seed: int, cases: Iterable[int], kinds: list[str]) -> tuple[Counter, list[Path]]:
    """Run `cases` by number: how often each kind ended with which code, and the bad folders."""
    def stop(*_: object) -> None:
        raise Hang

    ends, bad = Counter(), []
    previous = signal.signal(signal.SIGALRM, stop)
    with tempfile.TemporaryDirectory(dir=out) as template:
        make_template(Path(template))
        for number in cases:
            kind, folder = kinds[number % len(kinds)], out / f"{seed}-{number}"
            code, well = one_case(kind, random.Random(f"{seed} {number}"), Path(template), folder)
            ends[kind, code] += 1
            bad += [] if well else [folder]
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
