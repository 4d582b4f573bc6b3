"""The tables between markers say what their reports say; README.md and docs/*.md."""

import json
import re

import pytest

from scripts.tables.documents import REPORTS, ROOT, documents, refreshed

TABLE = re.compile(r"^<!-- table:(\S+?)(?: rows=\S+)? begin -->$(.*?)^<!-- table:\1 end -->$", re.M | re.S)


@pytest.mark.parametrize("path", documents(), ids=lambda path: str(path.relative_to(ROOT)))
def test_the_tables_are_those_of_the_reports(path):
    text = path.read_text()
    assert text == refreshed(path, text, REPORTS), "python scripts/reproduce.py --refresh-docs"


def marked() -> list[tuple[str, str]]:
    return [table for path in documents() for table in TABLE.findall(path.read_text())]


def test_every_printed_figure_is_the_reports():
    """Read back without the code that wrote them: mean and deviation under each heading."""
    compared = 0
    for name, body in marked():
        rows = {row["label"].replace("|", "\\|"): row for row in
                json.loads((REPORTS / name / "report.json").read_text())["rows"].values()}
        head, _, *lines = ([cell.strip() for cell in re.split(r"(?<!\\)\|", line)[1:-1]] for line in body.split("\n")
                           if line)
        for line in lines:
            cells = dict(zip(head, line, strict=True))
            for scenario, cell in rows[cells[""]]["scenarios"].items() if cells[""] in rows else ():
                printed = cells[scenario.replace("_", " ")].replace("\N{MINUS SIGN}", "-").split(" ± ")
                wanted = [cell["mean"]] if cell["std"] is None else [cell["mean"], cell["std"]]
                assert [float(x) for x in printed] == pytest.approx(wanted, abs=0.0500001), (name, cells[""], scenario)
                compared += 1
        assert {cells[0] for cells in lines if cells[0] not in rows} <= {"*Bayes oracle*", "*question-only floor*"}
    assert compared >= 30
