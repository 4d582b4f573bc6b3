"""Ask questions about one video: python scripts/answer.py --checkpoint RUN --video clip.mp4
--question "..." ["..." ...]

Prints the most probable answers and which modality was missing; of several questions a table. A
clip without a sound track or without a picture is answered too; --mute and --blank take one away
from a clip that has both.
"""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path

from tabulate import tabulate
from torch import Tensor

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

from engine.errors import UsageError, positive, require, run_guarded, shown

require("video", "av", "transformers")

from dataset.extract import parse_weights
from dataset.extract.media import video_seconds
from dataset.extract.weights import RANDOM
from dataset.extracted import WARNING
from dataset.files import refuse_special
from dataset.types import MODALITIES
from engine.answerer import Answer, Answerer


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--checkpoint", type=Path, required=True, help="run folder, checkpoint or exported folder")
    parser.add_argument("--video", type=Path, required=True)
    parser.add_argument("--question", nargs="+", default=[], metavar="TEXT", help="one question or several")
    parser.add_argument("--questions", type=Path, metavar="FILE",
                        help='a file of lines {"question": "...", "choices": ["...", "..."]}, choices optional')
    parser.add_argument("--choices", nargs="+", default=[], metavar="TEXT", help="candidates of every --question")
    parser.add_argument("--mute", action="store_true", help="as if the clip had no sound")
    parser.add_argument("--blank", action="store_true", help="as if the clip had no picture")
    parser.add_argument("--weights", nargs="+", default=[], metavar="NAME=PATH",
                        help="local weights of the extractors, or random, as for extract_features.py")
    parser.add_argument("--top", type=positive, default=5, help="answers to print (default 5)")
    parser.add_argument("--json", action="store_true", help="print one JSON object, and notes on stderr")
    parser.add_argument("--device", choices=("auto", "cpu", "cuda"), default="auto")
    return parser.parse_args()


def read_file(path: Path) -> list[tuple[str, list[str]]]:
    """Questions with their candidates; UsageError naming the line that is none."""
    refuse_special(path)
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except ValueError as error:
        raise UsageError(f"--questions {path} is not text in UTF-8 ({error})") from error
    asked = []
    for number, line in enumerate(lines, 1):
        if not line.strip():
            continue
        try:
            record = json.loads(line)
            question, choices = record["question"], record.get("choices") or []
            if not isinstance(choices, list) or not all(isinstance(text, str) for text in (question, *choices)):
                raise TypeError("its values must be text")
            asked.append((question, choices))
        except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
            raise UsageError(f'--questions {path}, line {number}: expected {{"question": "...", "choices": ["...", '
                             f'"..."]}}, got {shown(line)}') from error
    return asked


def presence_lines(presence: Tensor, method: str, taken: tuple[bool, bool]) -> list[str]:
    """What the clip has of either modality. `taken`: whether --mute or --blank took it away."""
    lines = []
    for modality, name in enumerate(MODALITIES):
        there, total = int(presence[:, modality].sum()), len(presence)
        state = f"{there} of {total} segments present" if there else "missing"
        cause = f" (taken away by --{('mute', 'blank')[modality]})" if taken[modality] else ""
        left = "" if there == total else f"; method={method} answers without {'the rest' if there else 'it'}"
        lines.append(f"{name}: {'present' if there == total else state}{cause}{left}")
    return lines


def as_text(answers: list[Answer], top: int) -> str:
    """The best answers of one question in lines, of several in a table."""
    cells = [[(f"{100 * share:5.1f} %", name) for name, share in answer.best[:top]] for answer in answers]
    if len(answers) == 1:
        return "\n".join(f"{share}  {name}" for share, name in cells[0])
    rows = [(answer.question, *(f"{name} {share.strip()}" for share, name in row))
            for answer, row in zip(answers, cells, strict=True)]
    return tabulate(rows, headers=["question", "answer", *["or"] * (max(map(len, rows)) - 2)])


def as_json(answers: list[Answer], presence: Tensor, top: int) -> str:
    there = {name: presence[:, modality].tolist() for modality, name in enumerate(MODALITIES)}
    found = [{"question": a.question, "answers": [{"answer": n, "probability": p} for n, p in a.best[:top]],
              "notes": a.notes} for a in answers]
    return json.dumps({"present": there, "questions": found}, indent=2)


def main() -> None:
    options = parse()
    asked = [(question, options.choices) for question in options.question]
    asked += read_file(options.questions) if options.questions else []
    if not asked:
        raise UsageError("nothing is asked; give --question TEXT or --questions FILE")
    weights = parse_weights(options.weights)
    answerer = Answerer(options.checkpoint, weights, options.device)
    for question, choices in asked:          # before the clip is read, which takes longer
        answerer.prepare(question, choices)
    streams = answerer.read(options.video, options.mute, options.blank)
    answers = answerer.ask(streams, [question for question, _ in asked], [choices for _, choices in asked])
    report = sys.stderr if options.json else sys.stdout
    if RANDOM in weights.values():
        print(WARNING, file=report)
    used, length = answerer.seconds, video_seconds(options.video)
    if length >= used + 0.5:
        print(f"note: the first {used} s are used, {length - used:.0f} of {length:.0f} s are not", file=report)
    for note in dict.fromkeys(note for answer in answers for note in answer.notes):
        print(f"note: {note}", file=report)
    taken = (options.mute, options.blank)
    print("\n".join(presence_lines(streams.presence, answerer.config["method"]["name"], taken)), file=report)
    print(as_json(answers, streams.presence, options.top) if options.json else as_text(answers, options.top))


if __name__ == "__main__":
    run_guarded(main)
