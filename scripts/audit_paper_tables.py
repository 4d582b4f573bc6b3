"""Audit of the published tables: python scripts/audit_paper_tables.py [--annotations DIR] [--write]

Holds the paper's figures, as printed, against the number of questions of each type; prints what
follows as Markdown. Exit code 0 whatever the verdicts are.
"""

from __future__ import annotations

import argparse
import math
import sys
from collections import Counter
from pathlib import Path

from tabulate import tabulate

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

from dataset import question_only_floor
from dataset.files import write_text
from dataset.questions import read_questions
from engine.errors import UsageError, run_guarded
from scripts.study.audit import CONFIRMED, POINTS, Material, read_material
from scripts.study.published import chance, fits, percent, printed_as, printed_averages

PAGE = ROOT / "docs" / "paper_tables.md"
INTRODUCTION = """# The published tables, checked against themselves

An accuracy is a number of questions k out of n, printed with two decimals. The n of every question type is known, so a
printed figure either is some k/n or it is not, and averages over questions follow exactly. This says where figures
stand and what they were computed on, not how good a method is, nor why a figure is as it is. "+ RMM + AVR" and "ours"
are the paper's "+Ours"; `json` is the first release of the MUSIC-AVQA annotations, `json_update` the corrected one.
"""
SOURCES = """## Sources

Written by `python scripts/audit_paper_tables.py --write` from the figures in `configs/tables/table*.yaml` and the
questions per type in `configs/published/question_counts.yaml`; with `--annotations DIR` these are recounted.
`configs/tables` holds every figure under the name of what it is about, and notes where the printed heading differs.
Comparisons in this project go by these names. Figure 5 is printed without figures.
"""


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--annotations", type=Path, metavar="DIR",
                        help="folder with json/ and json_update/ of MUSIC-AVQA: recount questions and floor first")
    parser.add_argument("--write", action="store_true", help=f"write {PAGE.relative_to(ROOT)} instead of printing")
    return parser.parse_args()


def recount(folder: Path, material: Material) -> None:
    """Compare the files' counts and floor with the stored ones; UsageError where they differ."""
    for release, counts in material.releases.items():
        test = read_questions(folder / release / "avqa-test.json")
        counted = Counter(question.type for question in test)
        floor = sum(question_only_floor(read_questions(folder / release / "avqa-val.json"), test))
        wrong = {name: (n, counted[name]) for name, n in counts.items() if counted[name] != n}
        if floor != material.floors[release]:
            wrong["floor"] = (material.floors[release], floor)
        if wrong:
            differences = ", ".join(f"{name} {stored} stored, {here} counted" for name, (stored, here) in wrong.items())
            raise UsageError(f"{folder / release} differs from configs/published/question_counts.yaml: {differences}. "
                             "Use the annotation files of the release, or correct the counts")
        print(f"{release}: {len(test):,} questions recounted, as stored", file=sys.stderr)


def verdicts(material: Material) -> str:
    """The table of verdicts and, numbered alike, what shows each."""
    points = [point(material) for point in POINTS]
    lines = [(i, p.claim, p.verdict if p.verdict == CONFIRMED else f"**{p.verdict}**") for i, p in enumerate(points, 1)]
    shown = "\n".join(f"{i}. {p.shown}" for i, p in enumerate(points, 1))
    head = tabulate(lines, headers=["", "statement", "verdict"], tablefmt="github")
    return f"## Verdicts\n\n{head}\n\n## What shows it\n\n{shown}\n"


def sharpness(material: Material) -> str:
    """How likely a figure fits by luck, by type."""
    releases = material.releases
    names = next(iter(releases.values()))
    lines = [(name, *(f"{counts[name]:,} / {100 * chance(counts[name]):.0f} %" for counts in releases.values()))
             for name in names]
    totals = [sum(counts.values()) for counts in releases.values()]
    lines.append(("all", *(f"{n:,} / {100 * chance(n):.0f} %" for n in totals)))
    rare = ", ".join(f"{n:,}: {100 * chance(n):.1f} %" for n in material.avqa.values())
    least = [min(chance(counts[name]) for counts in releases.values()) for name in names]
    table = tabulate(lines, headers=["questions / fit by luck", *(f"`{r}`" for r in releases)], tablefmt="github")
    return (f"## How sharp the check is\n\nThe share of all values from 0.00 to 100.00 that are some k/n. Of the nine "
            f"cells of a row, {sum(least):.1f} are expected to fit a test set that is not its own; that all nine do by "
            f"luck has a probability of {math.prod(least):.0e}.\n\n{table}\n\nTable 2, by its implied counts: {rare}. "
            "Its large types fit often by luck; what decides there is that all rows and their totals fit together.\n")


def rows(material: Material) -> str:
    """Every row of Tables 1 and 3 with the cells that fit and the averages that do not follow."""
    lines = []
    for row in material.rows:
        printed, read = (fits(row, exchange, material.releases) for exchange in ({}, material.reading))
        wrong = ", ".join(f"{part} {percent(printed_averages(row)[part])} ({printed_as(*pair)})"
                          for part, pair in material.wrong_averages(row).items())
        missing = row.scenario.removesuffix("_missing")
        lines.append((row.table[-1], row.label, missing, max(printed.values()), *read.values(), wrong or "all"))
    head = ["table", "row", "missing", "as printed", *(f"exchanged, `{name}`" for name in material.releases),
            "averages that follow, or printed (from the cells)"]
    return ("## Tables 1 and 3, row by row\n\nHow many of nine cells are whole numbers of questions: under the "
            "headings as printed, on the better release, and with Loc and Cnt of Audio-Visual exchanged, on each.\n\n"
            f"{tabulate(lines, headers=head, tablefmt='github')}\n")


def main() -> None:
    options = parse()
    material = read_material()
    if options.annotations:
        recount(options.annotations, material)
    page = "\n".join((INTRODUCTION, verdicts(material), sharpness(material), rows(material), SOURCES))
    if options.write:
        write_text(PAGE, page)
        print(f"written: {PAGE.relative_to(ROOT)}")
    else:
        print(page)


if __name__ == "__main__":
    run_guarded(main)
