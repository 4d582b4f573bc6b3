"""Tables of README.md and docs/*.md, written between markers from docs/reports/TABLE/report.json.

    <!-- table:embedded rows=plain,dropout begin -->
    <!-- table:embedded end -->

Without `rows=` the table has all rows of the report. `<!-- table:plugin costs begin -->` stands for
what the rows recall and cost, in place of the accuracies.
"""

from __future__ import annotations

import json
import re
from pathlib import Path

from dataset.files import write_text
from engine.errors import UsageError
from scripts.tables.cost import cost_table
from scripts.tables.text import results_table

ROOT = Path(__file__).resolve().parents[2]
REPORTS = ROOT / "docs" / "reports"
MARKER = re.compile(r"<!-- table:(?P<table>\S+?)(?P<costs> costs)?(?: rows=(?P<rows>\S+))? (?P<edge>begin|end) -->")
ANY = re.compile(r"<!--\s*table\b.*")


def documents(root: Path = ROOT) -> list[Path]:
    """The files that may hold such tables."""
    return [*sorted(root.glob("*.md")), *sorted((root / "docs").glob("*.md"))]


def refresh(paths: list[Path], reports: Path) -> list[Path]:
    """Write every marked table again, or none if one fails; returns the files that changed."""
    texts = {path: path.read_text(encoding="utf-8") for path in paths}
    new = {path: refreshed(path, text, reports) for path, text in texts.items()}
    changed = [path for path in paths if new[path] != texts[path]]
    for path in changed:
        write_text(path, new[path])
    return changed


def refreshed(path: Path, text: str, reports: Path) -> str:
    """A document's text with the reports' tables of now; UsageError names file and line."""
    kept, begun = [], None
    for number, line in enumerate(text.split("\n"), start=1):
        place = f"{path}, line {number}"
        marker = marker_in(line, place)
        if marker and marker["edge"] == "begin":
            if begun:
                raise UsageError(f"{place}: the table begun at line {begun[0]} has no end; write "
                                 f"'<!-- table:{begun[1]} end -->' below it")
            begun = number, marker["table"]
            kept += [line, "", *marked_table(marker, place, reports).split("\n"), ""]
        elif marker:
            if not begun or begun[1] != marker["table"]:
                raise UsageError(f"{place}: this ends a table '{marker['table']}' that has not begun; write "
                                 f"'<!-- table:{marker['table']} begin -->' above it")
            begun = None
        if not begun:
            kept.append(line)
    if begun:
        raise UsageError(f"{path}, line {begun[0]}: this table has no end; write '<!-- table:{begun[1]} end -->' "
                         "below it")
    return "\n".join(kept)


def marker_in(line: str, place: str) -> dict[str, str] | None:
    """The parts of a marker that stands alone on its line, None where there is none."""
    if not ANY.match(line):
        return None
    marker = MARKER.fullmatch(line.rstrip())
    if not marker or ((marker["rows"] or marker["costs"]) and marker["edge"] == "end"):
        raise UsageError(f"{place}: '{line}' is no marker; write '<!-- table:NAME begin -->', "
                         "'<!-- table:NAME rows=ROW,ROW begin -->' or '<!-- table:NAME end -->'")
    return marker.groupdict()


def marked_table(marker: dict[str, str], place: str, reports: Path) -> str:
    report = reports / marker["table"] / "report.json"
    try:
        content = json.loads(report.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise UsageError(f"{place}: {report} cannot be read ({type(error).__name__}); python scripts/reproduce.py "
                         f"{marker['table']} --out {reports} makes it") from error
    try:
        of_kind = cost_table if marker["costs"] else results_table
        return of_kind(content, marker["rows"].split(",") if marker["rows"] else None)
    except UsageError as error:
        raise UsageError(f"{place}: {error}") from error
