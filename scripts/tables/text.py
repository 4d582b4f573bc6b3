"""Numbers, labels and tables as the reports print them."""

from __future__ import annotations

from collections.abc import Iterable

from tabulate import tabulate

from scripts.tables.collect import mean, spread

MINUS = "\N{MINUS SIGN}"


def number(value: float | None, digits: int = 1, sign: bool = False) -> str:
    if value is None:
        return "-"
    text = f"{value:{'+' if sign else ''}.{digits}f}"
    text = text.lstrip("+-") if float(text) == 0 else text
    return text.replace("-", MINUS)


def with_spread(values: Iterable[float], digits: int = 1) -> str:
    """mean ± standard deviation; the mean alone of one value."""
    values = list(values)
    return plus_minus(mean(values), spread(values), digits) if values else "-"


def plus_minus(middle: float, deviation: float | None, digits: int = 1) -> str:
    return number(middle, digits) + (f" ± {number(deviation, digits)}" if deviation is not None else "")


def pretty(scenario: str) -> str:
    return scenario.replace("_", " ")


def escaped(label: str) -> str:
    return label.replace("|", "\\|")


def grid_text(lines: list[list[str]], head: list[str]) -> str:
    align = ["left", *["right"] * (len(head) - 1)]
    return tabulate(lines, headers=head, tablefmt="github", disable_numparse=True, colalign=align if lines else None)
