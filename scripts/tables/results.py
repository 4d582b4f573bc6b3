"""The main table of a report as Markdown, out of report.json alone: the report and the documents print the same."""

from __future__ import annotations

from typing import Any

from engine.config import nearest
from engine.errors import UsageError
from scripts.tables.text import escaped, grid_text, number, plus_minus, pretty


def results_table(report: dict[str, Any], chosen: list[str] | None = None) -> str:
    """Accuracies of the rows of report.json, or of those `chosen` in their order, with oracle and floor.

    Where a row has AVR, its loss and the bound of that loss stand beside. UsageError for a row the report does not have.
    """
    for row in chosen or ():
        if row not in report["rows"]:
            raise UsageError(f"the report of table {report['table']} has no row '{row}'; {nearest(row, report['rows'])}")
    rows = {row: report["rows"][row] for row in chosen or report["rows"]}
    scenarios = list(dict.fromkeys(s for row in rows.values() for s in row["scenarios"]))
    with_ave = any(row.get("ave") for row in rows.values())
    head = ["", "seeds", *map(pretty, scenarios), *(["L_ave", "its bound"] if with_ave else [])]
    lines = []
    for row in rows.values():
        cells = row["scenarios"]
        lines.append([escaped(row["label"]), str(max(cell["seeds"] for cell in cells.values())),
                      *(plus_minus(cells[s]["mean"], cells[s]["std"]) if s in cells else "-" for s in scenarios),
                      *(ave_columns(row.get("ave")) if with_ave else [])])
    for name, kind in (("*Bayes oracle*", "oracle"), ("*question-only floor*", "floor")):
        lines += [[f"{name}{of}", "", *values, *[""] * (2 * with_ave)]
                  for of, values in limits(report, rows, scenarios, kind)]
    return grid_text(lines, head)


def ave_columns(ave: dict[str, Any] | None) -> list[str]:
    return [plus_minus(ave["mean"], ave["std"], 2), number(ave["bound"], 2)] if ave else ["", ""]


def limits(report: dict[str, Any], rows: dict[str, Any], scenarios: list[str], kind: str) -> list[tuple[str, list[str]]]:
    """The distinct lines of oracles or floors among the rows; one, unless rows are on different data."""
    dataset = {run["row"]: run["dataset"] for run in report["runs"]}
    found: list[tuple[str, dict[str, str]]] = []
    for key, row in rows.items():
        own = {s: number(cell[kind]) for s, cell in row["scenarios"].items()}
        for _, values in found:
            if all(values.get(s, value) == value for s, value in own.items()):     # a row may lack a scenario
                values.update(own)
                break
        else:
            found.append((dataset[key], own))
    return [(f" ({name})" if len(found) > 1 else "", [values.get(s, "-") for s in scenarios]) for name, values in found]
