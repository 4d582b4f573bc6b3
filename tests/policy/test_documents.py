"""The tables between markers say what their reports say; README.md and docs/*.md."""

import json
import re

import pytest

from scripts.tables.documents import REPORTS, ROOT, documents, refreshed

TABLE = re.compile(r"^<!-- table:(\S+?)(?: rows=\S+)? begin -->$(.*?)^<!-- table:\1 end -->$", re.M | re.S)
LOSSES = {"L_ave": ("mean", "std"), "skip alone": ("skip",), "its bound": ("bound",)}     # heading -> keys of `ave`


@pytest.mark.parametrize("path", documents(), ids=lambda path: str(path.relative_to(ROOT)))
def test_the_tables_are_those_of_the_reports(path):
    text = path.read_text()
    assert text == refreshed(path, text, REPORTS), "python scripts/reproduce.py --refresh-docs"


def marked() -> list[tuple[str, str]]:
    return [table for path in documents() for table in TABLE.findall(path.read_text())]


def figures(cell: str) -> list[float]:
    """The numbers of a cell: mean and deviation, a limit, a count; "-" and "" have none."""
    return [float(part) for part in cell.replace("\N{MINUS SIGN}", "-").split(" ± ") if part not in ("", "-")]


def expected(report: dict, first: str, heading: str) -> list[float]:
    """What stands under a heading in the row of a label, of the oracle or of the floor."""
    rows, scenario = report["rows"].values(), heading.replace(" ", "_")
    limit = {"*Bayes oracle*": "oracle", "*question-only floor*": "floor"}.get(first)
    if limit:
        values = [row["scenarios"][scenario][limit] for row in rows if scenario in row["scenarios"]]
        assert len(set(values)) <= 1, f"{first} differs between rows"
        return [value for value in values[:1] if value is not None]
    row, = (row for row in rows if row["label"].replace("|", "\\|") == first)
    if heading == "seeds":
        return [max(cell["seeds"] for cell in row["scenarios"].values())]
    cell = (row.get("ave") if heading in LOSSES else row["scenarios"].get(scenario)) or {}
    values = [cell.get(key) for key in LOSSES.get(heading, ("mean", "std"))]
    return [value for value in values if value is not None]


def test_every_printed_figure_is_the_reports():
    """Read back without the code that wrote them, every cell of every table between markers."""
    compared = 0
    for name, body in marked():
        report = json.loads((REPORTS / name / "report.json").read_text())
        head, _, *lines = ([cell.strip() for cell in re.split(r"(?<!\\)\|", line)[1:-1]] for line in body.split("\n")
                           if line)
        for first, *cells in lines:
            for heading, cell in zip(head[1:], cells, strict=True):
                empty = first[0] == "*" and heading in ("seeds", *LOSSES)       # limits are of accuracies
                wanted = [] if empty else expected(report, first, heading)
                half = 0.0050001 if heading in LOSSES else 0.0500001
                assert figures(cell) == pytest.approx(wanted, abs=half), (name, first, heading)
                compared += len(wanted)
    assert compared >= 150
