"""What a data set has, lacks and can run: check_dataset.py ROOT [CONFIG.yaml ...] [key=value ...]

Reads the annotations and the header of every feature file (with --values every value), prints the
question-only floor per question type, and ends with what to do next. Exit code 0 when every split
can be run, 1 when only some can, 2 when none.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from tabulate import tabulate
from tqdm import tqdm

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

from dataset import Vocabulary, build_dataset, question_only_floor
from dataset.extracted import WARNING
from dataset.overlap import doubles, other_releases
from dataset.types import AUDIO, MODALITIES, VISUAL, DataError, Question
from engine.config import compose
from engine.errors import UsageError, run_guarded
from engine.metrics import group
from scripts.study import advice

SPLITS = ("train", "val", "test")
Clip = tuple[str, int]       # the sound or the picture of a video: its name and AUDIO or VISUAL


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("root", type=Path)
    parser.add_argument("arguments", nargs="*", metavar="[CONFIG.yaml ...] [key=value ...]",
                        help="as for main_train.py, such as dataset=avqa dataset.annotations=json; without a file "
                        "dataset=music_avqa")
    parser.add_argument("--values", action="store_true", help="read every value too, to find NaN (slow)")
    return parser.parse_intermixed_args()


def read_splits(data) -> dict[str, list[Question]]:
    """The questions of every split that can be read; prints why the others cannot."""
    splits = {}
    for split in SPLITS:
        try:
            splits[split] = data.questions(split)
        except DataError as error:
            print(f"{split}: {error}")
    return splits


def clips_of(question: Question) -> set[Clip]:
    """The sound and the picture that belong to a question, as (video, modality)."""
    return {(question.video_of(modality), modality) for modality in (AUDIO, VISUAL)}


def check_clips(data, clips: list[Clip], values: bool) -> dict[Clip, str]:
    """Clip -> what is wrong with it: a file that is not there, or one that is damaged."""
    problems = {}
    for video, modality in tqdm(clips, desc="files", disable=None):
        store = data.stores[modality]
        if data.recorded.lacks(video, modality):
            continue
        if not store.has(video):
            problems[video, modality] = f"{MODALITIES[modality]}: no file in {store.folder}"
            continue
        try:
            store.read_segments(video) if values else store.check(video)
        except DataError as error:
            problems[video, modality] = str(error)
    return problems


def print_short(data, clips: list[Clip]) -> None:
    """How many of the good `clips` have files that end before the longest one."""
    for modality, store in data.stores.items():
        lengths = [store.segments_of(v) for v, m in clips if m == modality and not data.recorded.lacks(v, m)]
        short = [n for n in lengths if n < store.segments]
        if short:
            print(f"{MODALITIES[modality]}: {len(short)} of {len(lengths)} videos have fewer than {store.segments} "
                  f"segments (down to {min(short)}); what they lack is absent")


def print_split(split: str, questions: list[Question], problems: dict[Clip, str]) -> bool:
    """Print what can be used of a split; returns whether that is all of it."""
    bad = {video for q in questions for video, modality in clips_of(q) & problems.keys()}
    usable = sum(clips_of(q).isdisjoint(problems) for q in questions)
    print(f"{split}: {len(questions)} questions on {len({q.video_id for q in questions})} videos, {usable} questions "
          "can be used" + (f"; {len(bad)} videos lack features" if bad else ""))
    exchanged = sum(q.sound is not None for q in questions)
    if exchanged:
        print(f"  {exchanged} questions hear the sound of another video (unmatch_audio)")
    twice = contradictions(questions)
    if twice:
        print(f"  {twice} questions are listed more than once with different answers: at most {len(questions) - twice} "
              f"of {len(questions)} can be answered right")
    return not bad


def contradictions(questions: list[Question]) -> int:
    """Rows that no answer can get right beside an identical question with another answer."""
    answers: dict[tuple, list[str]] = {}
    for q in questions:
        answers.setdefault((q.question_id, q.video_id, q.words), []).append(q.answer)
    return sum(len(given) - max(given.count(a) for a in given) for given in answers.values())


def print_doubles(data, splits: dict[str, list[Question]]) -> None:
    """Which other annotation files below the root hold questions of the test split."""
    test = splits.get("test", [])
    releases = other_releases(data.root, {data.annotation_file(split) for split in SPLITS})
    own = {data.annotation_file(split): splits[split] for split in ("train", "val") if split in splits}
    counts = {path: doubles(test, questions) for path, questions in (own | releases).items()}
    if any(counts.values()):
        print(f"\nof the {len(test)} test questions, these stand on the same video in")
        print(tabulate([(str(path.relative_to(data.root)), n) for path, n in counts.items() if n], tablefmt="plain"))
        print("warning: a model trained or selected on such a file has seen their answers; its accuracy here is too "
              "high. Train it on this data set, or score it on its own")


def print_floor(train: list[Question], test: list[Question]) -> None:
    result = group([q.type for q in test], question_only_floor(train, test))
    rows = [(name, cell["n"], cell["accuracy"]) for name, cell in result["by_type"].items()]
    print("\nquestion-only floor on test (majority training answer for the text of the question)")
    print(tabulate([*rows, ("all", result["n"], result["overall"])], headers=["type", "questions", "percent"],
                   floatfmt=".1f"))


def open_features(data, splits: dict[str, list[Question]], name: str) -> None:
    """Print what the features are; UsageError with what to do where they cannot be read."""
    try:
        stores = data.stores
        if data.text:
            data.text.check(q for questions in splits.values() for q in questions)
    except DataError as error:
        remedy = advice.on_question_features(data, name) if "stores" in vars(data) else advice.on_features(data, [])
        raise UsageError(f"the annotations can be read, the features cannot: {error}. Next: "
                         + "; ".join(remedy)) from error
    for modality, store in stores.items():
        print(f"{MODALITIES[modality]}: {store.folder}, {store.rows} rows of shape {list(store.shape)}, "
              f"{store.segments} segments used")
    if data.text:
        print(f"questions: {data.text.path}, {len(data.text.row)} texts of {data.text.channels} channels")
    if data.recorded.rows:
        print(f"{len(data.recorded.rows)} videos lack something themselves (presence.json) and are treated as such")


def print_lines(lines: list[str]) -> None:
    for line in lines:
        print(f"  {line}")


def main() -> None:
    options = parse()
    files = [a for a in options.arguments if "=" not in a]
    changes = [*([] if files else ["dataset=music_avqa"]), f"dataset.root={options.root}",
               *(a for a in options.arguments if "=" in a)]
    section = compose(files, changes)["dataset"]
    data, name = build_dataset(section), section["name"]
    if data.dry_run:
        print(WARNING)
    splits = read_splits(data)
    if "train" in splits and "test" in splits:
        print_floor(splits["train"], splits["test"])
        for note in Vocabulary.build(splits["train"]).note(splits["test"], bool(section.get("question_features"))):
            print(note)
    print_doubles(data, splits)
    print()
    open_features(data, splits, name)
    clips = sorted({clip for questions in splits.values() for q in questions for clip in clips_of(q)})
    problems = check_clips(data, clips, options.values)
    for (video, _), problem in list(problems.items())[:10]:
        print(f"  {video}: {problem}")
    if len(problems) > 10:
        print(f"  ... and {len(problems) - 10} more")
    print_short(data, [clip for clip in clips if clip not in problems])
    whole = [split for split, questions in splits.items() if print_split(split, questions, problems)]
    if len(whole) == len(SPLITS):
        print("\neverything is there; what training costs, the backbone alone, the method from there:")
        print_lines(advice.commands(files, changes, len(splits["train"])))
        return
    print("\nnext:")
    print_lines(advice.on_annotations(data, [split for split in SPLITS if split not in splits]))
    if problems:
        damaged = [data.stores[m].folder / f"{video}.npy" for video, m in problems if data.stores[m].has(video)]
        print_lines([*advice.on_features(data, damaged), "or add dataset.skip_missing=true to use what is there"])
    if not any(clips_of(q).isdisjoint(problems) for questions in splits.values() for q in questions):
        raise UsageError("no split can be run; what to do stands above")
    sys.exit(1)


if __name__ == "__main__":
    run_guarded(main)
