"""The paper's tables as data (configs/tables), and the arithmetic of a printed accuracy.

An accuracy is k of n questions, printed with two decimals. Where n is known and below 10,000, at
most one k is printed as a given value, and for small n most values are printed for none. Figures
are kept as whole hundredths of a percent, so all of this is exact.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from itertools import combinations
from pathlib import Path
from typing import Any

import numpy as np
import yaml

from engine.errors import UsageError

WHOLE = 10_000                            # 100 percent in hundredths of a percent
CONFIGS = Path(__file__).resolve().parents[2] / "configs"
EVERY_ROW = "*"
Counts = int | np.ndarray

Exchange = dict[str, str]                 # printed heading -> the type its figures are about; types not named stay


@dataclass(frozen=True)
class PrintedRow:
    """One published row in one scenario, figures in hundredths of a percent."""

    table: str                            # "table1"
    name: str                             # the row's key in the table's YAML
    label: str
    scenario: str                         # "audio_missing" | "visual_missing"
    cells: dict[str, int]                 # by the heading that they are printed under
    modalities: dict[str, int]            # the averages by modality
    overall: int
    names: Exchange                       # how the YAML corrects the headings of this row

    def by_type(self, exchange: Exchange) -> dict[str, int]:
        """The cells by type if the headings are read with `exchange`."""
        return {exchange.get(heading, heading): value for heading, value in self.cells.items()}

    @property
    def title(self) -> str:
        return f"{self.label}, {self.scenario.replace('_', ' ')}"


def read_tables(folder: Path = CONFIGS / "tables") -> dict[str, list[PrintedRow]]:
    """Table name -> its published rows; tables without published figures are left out."""
    paths = sorted(folder.glob("*.yaml"))
    tables = {path.stem: read_rows(path.stem, yaml.safe_load(path.read_text())) for path in paths}
    return {name: rows for name, rows in tables.items() if rows}


def read_rows(table: str, content: dict[str, Any]) -> list[PrintedRow]:
    """The rows of `published`, their cells put back under the headings of print by `printed`."""
    rows = []
    for name, scenarios in content.get("published", {}).items():
        printed = content.get("printed", {})
        names = printed.get(name, printed.get(EVERY_ROW, {}))
        for scenario, figures in scenarios.items():
            types = {key: hundredths(value) for key, value in figures.get("by_type", {}).items()}
            if not set(names) <= set(types) or sorted(names) != sorted(names.values()):
                raise UsageError(f"configs/tables/{table}.yaml: 'printed' of row {name} must exchange types of that "
                                 f"row among themselves, got {names}")
            cells = {heading: types[names.get(heading, heading)] for heading in types}
            modalities = {key: hundredths(value) for key, value in figures.get("by_modality", {}).items()}
            rows.append(PrintedRow(table, name, content["rows"][name]["label"], scenario, cells, modalities,
                            hundredths(figures["overall"]), names))
    return rows


def hundredths(value: float) -> int:
    return round(value * 100)


def percent(value: int) -> str:
    return f"{value / 100:.2f}"


def agrees(value: Counts, right: Counts, n: Counts) -> Counts:
    """Whether `right` of `n` questions is printed as `value`; a tie may be rounded either way."""
    return 2 * abs(WHOLE * right - value * n) <= n


def closest_count(value: Counts, n: Counts) -> Counts:
    """The number of questions whose share comes closest to `value`."""
    return (2 * value * n + WHOLE) // (2 * WHOLE)


def fits_some(value: Counts, n: Counts) -> Counts:
    """Whether some number of `n` questions is printed as `value`."""
    return agrees(value, closest_count(value, n), n)


def questions_right(value: int, n: int) -> int | None:
    """k such that k of `n` is printed as `value`, else None; unique below 10,000 questions."""
    return closest_count(value, n) if fits_some(value, n) else None


def printed_as(right: int, n: int) -> str:
    """The share as it is printed, a tie rounded up."""
    return percent((2 * WHOLE * right + n) // (2 * n))


def chance(n: int) -> float:
    """Share of all two-decimal values between 0 and 100 that are printed for some k of `n`: what
    fits by luck.
    """
    return float(fits_some(np.arange(WHOLE + 1, dtype=np.int64), n).mean())


def misfits(cells: dict[str, int], counts: dict[str, int]) -> list[str]:
    """The types whose figure is no whole number of questions."""
    return [name for name, value in cells.items() if not fits_some(value, counts[name])]


def exchanges(types: Iterable[str]) -> list[Exchange]:
    """Reading the headings as printed, or with any two of them exchanged."""
    return [{}, *({a: b, b: a} for a, b in combinations(types, 2))]


def fits(row: PrintedRow, exchange: Exchange, releases: dict[str, dict[str, int]]) -> dict[str, int]:
    """Release of the test set -> how many cells of the row are whole numbers of its questions."""
    cells = row.by_type(exchange)
    return {release: len(cells) - len(misfits(cells, counts)) for release, counts in releases.items()}


def rank_exchanges(rows: list[PrintedRow], releases: dict[str, dict[str, int]]) -> list[tuple[int, Exchange]]:
    """Every reading of the headings with the number of cells that fit, each row on its better
    release; best first.
    """
    ranked = [(sum(max(fits(row, exchange, releases).values()) for row in rows), exchange)
              for exchange in exchanges(rows[0].cells)]
    return sorted(ranked, key=lambda pair: -pair[0])


def averages(cells: dict[str, int], counts: dict[str, int]) -> dict[str, tuple[int, int]]:
    """Modality, and "overall", -> questions right and asked, from a row's cells and `counts`.

    A cell that is no whole number of questions enters with the nearest one.
    """
    right = {name: closest_count(value, counts[name]) for name, value in cells.items()}
    parts = {name.split("/")[0]: [t for t in cells if t.split("/")[0] == name.split("/")[0]] for name in cells}
    parts = {**(parts if any("/" in name for name in cells) else {}), "overall": list(cells)}
    return {part: (sum(right[t] for t in types), sum(counts[t] for t in types)) for part, types in parts.items()}


def printed_averages(row: PrintedRow) -> dict[str, int]:
    return {**row.modalities, "overall": row.overall}


def wrong_averages(row: PrintedRow, cells: dict[str, int], counts: dict[str, int]) -> dict[str, tuple[int, int]]:
    """The printed averages that the row's cells do not give: part -> questions right and asked."""
    printed = printed_averages(row)
    return {part: (right, n) for part, (right, n) in averages(cells, counts).items()
            if not agrees(printed[part], right, n)}


def follows(row: PrintedRow, counts: dict[str, int]) -> bool:
    """Whether the total can be the mean over questions of the rounded averages by modality."""
    weights = {part: sum(n for name, n in counts.items() if name.split("/")[0] == part) for part in row.modalities}
    mean = sum(row.modalities[part] * n for part, n in weights.items()) / sum(weights.values())
    return abs(mean - row.overall) <= 1


def shared_cells(a: PrintedRow, b: PrintedRow) -> list[str]:
    return [name for name, value in a.cells.items() if b.cells[name] == value]


def possible_counts(values: Iterable[int], limit: int) -> np.ndarray:
    """All n up to `limit` for which every value is printed for some k of n."""
    n = np.arange(1, limit + 1, dtype=np.int64)
    return n[np.all([fits_some(value, n) for value in set(values)], axis=0)]


def search_counts(rows: list[dict[str, int]], totals: list[int], limit: int) -> tuple[np.ndarray, np.ndarray]:
    """All sets of counts with at most `limit` questions that every cell fits.

    `rows`: cells by type; `totals`: each row's printed average. Returns the counts (S, types) in
    the order of the first row and, of each set, how many totals are the average over its questions
    (S,); the most first.
    """
    types = list(rows[0])
    candidates = [possible_counts((row[t] for row in rows), limit) for t in types]
    least = [int(c[0]) if len(c) else limit + 1 for c in candidates]
    sets = np.zeros((1, 0), dtype=np.int64)
    for index, counts in enumerate(candidates):
        rest = sum(least[index + 1:])
        used = sets.sum(axis=1)
        room = np.searchsorted(counts, limit - rest - used, "right")                                  # (S,)
        last = np.concatenate([counts[:0], *(counts[:k] for k in room)])
        sets = np.column_stack([np.repeat(sets, room, axis=0), last])                                 # (S, index + 1)
    n = sets.sum(axis=1)                                                                              # (S,)
    hits = np.zeros(len(sets), dtype=np.int64)
    for row, total in zip(rows, totals, strict=True):
        values = np.array([row[t] for t in types])
        hits += agrees(total, closest_count(values, sets).sum(axis=1), n)
    order = np.argsort(-hits, kind="stable")
    return sets[order], hits[order]
