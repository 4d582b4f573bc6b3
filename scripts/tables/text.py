"""Numbers and tables as the reports print them."""

from __future__ import annotations

import math
import statistics
from collections.abc import Collection
from typing import Any

from tabulate import tabulate

from engine.config import nearest
from engine.errors import UsageError

MINUS = "\N{MINUS SIGN}"


def moments(values: Collection[float]) -> dict[str, float | None]:
    """Mean and sample standard deviation, None of a single value."""
    return {"mean": statistics.mean(values), "std": statistics.stdev(values) if len(values) > 1 else None}


def number(value: float | None, digits: int = 1, sign: bool = False) -> str:
    if value is None:
        return "-"
    text = f"{value:{'+' if sign else ''}.{digits}f}"
    text = text.lstrip("+-") if float(text) == 0 else text
    return text.replace("-", MINUS)


def plus_minus(middle: float | None, deviation: float | None, digits: int = 1) -> str:
    """mean ± standard deviation; the mean alone where there is no deviation."""
    return number(middle, digits) + (f" ± {number(deviation, digits)}" if deviation is not None else "")


def with_spread(cell: dict[str, Any] | None, digits: int = 1) -> str:
    return plus_minus(cell["mean"], cell["std"], digits) if cell else "-"


def pretty(scenario: str) -> str:
    return scenario.replace("_", " ")


def escaped(label: str) -> str:
    return label.replace("|", "\\|")


def grid_text(lines: list[list[str]], head: list[str]) -> str:
    align = ["left", *["right"] * (len(head) - 1)]
    return tabulate(lines, headers=head, tablefmt="github", disable_numparse=True, colalign=align if lines else None)


def finite(value: Any) -> Any:
    """JSON has no NaN: None in its place."""
    if isinstance(value, dict):
        return {key: finite(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [finite(item) for item in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


def scenarios_of(rows: dict[str, dict[str, Any]]) -> list[str]:
    return list(dict.fromkeys(scenario for row in rows.values() for scenario in row["scenarios"]))


def rows_of(report: dict[str, Any], chosen: list[str] | None) -> dict[str, dict[str, Any]]:
    """All rows of a report.json, or those `chosen`; UsageError where it has no such row."""
    for row in chosen or ():
        if row not in report["rows"]:
            raise UsageError(f"the report of table {report['table']} has no row '{row}'; "
                             f"{nearest(row, report['rows'])}")
    return {row: report["rows"][row] for row in chosen or report["rows"]}


def results_table(report: dict[str, Any], chosen: list[str] | None = None) -> str:
    """The accuracies of `rows_of` the report, with oracle and floor.

    Where a row has AVR, its loss stands beside, and the loss's references where a row has them.
    """
    rows = rows_of(report, chosen)
    scenarios = scenarios_of(rows)
    losses = [row["ave"] for row in rows.values() if row.get("ave")]
    references = {key: title for key, title in (("skip", "skip alone"), ("bound", "its bound"))
                  if any(ave.get(key) is not None for ave in losses)}
    head = ["", "seeds", *map(pretty, scenarios), *(["L_ave", *references.values()] if losses else [])]
    lines = []
    for row in rows.values():
        cells, ave = row["scenarios"], row.get("ave")
        lines.append([escaped(row["label"]), str(max(cell["seeds"] for cell in cells.values())),
                      *(with_spread(cells.get(s)) for s in scenarios)])
        if ave:
            lines[-1] += [with_spread(ave, 2), *(number(ave.get(key), 2) for key in references)]
    for name, kind in (("*Bayes oracle*", "oracle"), ("*question-only floor*", "floor")):
        limits = limits_of(report, rows, scenarios, kind)
        lines += [[name + (f" ({data})" if len(limits) > 1 else ""), "", *values] for data, values in limits]
    return grid_text(lines, head)


def limits_of(
    report: dict[str, Any], rows: dict[str, Any], scenarios: list[str], kind: str
) -> list[tuple[str, list[str]]]:
    """(data set, values) of the distinct oracles or floors: one, unless the rows' data differ."""
    dataset = {run["row"]: run["dataset"] for run in report["runs"]}
    limits: list[tuple[str, dict[str, str]]] = []
    for key, row in rows.items():
        own = {s: number(cell[kind]) for s, cell in row["scenarios"].items()}
        for _, values in limits:
            if all(values.get(s, value) == value for s, value in own.items()):     # a row may lack a scenario
                values.update(own)
                break
        else:
            limits.append((dataset[key], own))
    return [(data, [values.get(s, "-") for s in scenarios]) for data, values in limits]
