"""Per-question records to the paper's columns.

Everything is a sum over records: batch size, order and process count change no figure.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from tabulate import tabulate

from dataset.types import AVQA_TYPES

# Columns of Tables 1 and 3 (MUSIC-AVQA) under their right names: the printed ones exchange Loc and
# Cnt of Audio-Visual.
COLUMNS = {
    "Audio": {"Cnt": "Counting", "Comp": "Comparative"},
    "Visual": {"Cnt": "Counting", "Loc": "Location"},
    "Audio-Visual": {"Exist": "Existential", "Loc": "Location", "Cnt": "Counting", "Comp": "Comparative",
                     "Temp": "Temporal"},
}
BINS = 15                                # of the calibration error, the usual number


@dataclass(frozen=True)
class Record:
    """What became of one question in one scenario."""

    row: int
    question_id: int
    video_id: str
    type: str                # "Audio/Counting", "Which"
    scenario: str
    prediction: str
    answer: str
    confidence: float        # the predicted answer's probability

    @property
    def correct(self) -> bool:
        return self.prediction == self.answer

    def as_dict(self) -> dict[str, Any]:
        return {**asdict(self), "correct": self.correct}


def percentage(flags: Iterable[bool]) -> float | None:
    """Share of True in percent, None of nothing."""
    flags = list(flags)
    return 100 * sum(flags) / len(flags) if flags else None


def calibration(answers: Iterable[tuple[float, bool]]) -> float:
    """Expected calibration error in percent of answers (confidence, right): |confidence - accuracy|
    over weighted bins.
    """
    confidence, right = np.array(list(answers), dtype=float).T
    edges = [*np.linspace(0, 1, BINS + 1), np.inf]           # certainty has a bin of its own
    return 100 * float(np.abs(np.histogram(confidence, edges, weights=confidence - right)[0]).sum()) / len(right)


def group(types: list[str], flags: list[bool]) -> dict[str, Any]:
    """Accuracy overall, by type and by modality; averages are over questions, as in the paper.

    A type "Audio/Counting" names its modality; types without one, as those of AVQA, count for none.
    """
    def cell(keep) -> dict[str, Any]:
        kept = [flag for type_, flag in zip(types, flags, strict=True) if keep(type_)]
        return {"accuracy": percentage(kept), "n": len(kept)}

    by_type = {name: cell(lambda t, name=name: t == name) for name in sorted(set(types))}
    modalities = sorted({name.split("/")[0] for name in by_type if "/" in name})
    by_modality = {name: cell(lambda t, name=name: t.split("/")[0] == name) for name in modalities}
    return {"overall": percentage(flags), "n": len(flags), "by_type": by_type, "by_modality": by_modality}


def summarise(records: list[Record], floor: dict[int, bool], oracle: dict[int, bool] | None) -> dict[str, Any]:
    """One scenario of results.json; `floor`, `oracle`: per row, whether they are right."""
    records = sorted(records, key=lambda r: r.row)
    types = [r.type for r in records]
    result = group(types, [r.correct for r in records])
    for name, right in (("question_only_floor", floor), ("oracle", oracle)):
        known = None if right is None else group(types, [right[r.row] for r in records])
        result[name] = known and known["overall"]
        result[f"{name}_by_type"] = known and accuracies(known)
    return result


def by_source(records: list[Record], source: Callable[[str], str | None]) -> dict[str, dict[str, Any]]:
    """Accuracy on each source of videos (real, synthetic); empty where the data have but one."""
    known = [(name, r.correct) for r in records if (name := source(r.video_id))]
    return group([name for name, _ in known], [flag for _, flag in known])["by_type"]


def by_part(records: list[Record], parts: dict[int, str], floor: dict[int, bool]) -> dict[str, dict[str, Any]]:
    """One scenario's results on each part of a split; `parts`: of every row (head or tail)."""
    return {part: summarise([r for r in records if parts.get(r.row) == part], floor, None)
            for part in sorted(set(parts.values()))}


def notes(results: dict[str, dict[str, Any]], records: list[Record], answers: list[str]) -> list[str]:
    """What a reader of the table must know: doubtful results, and answers nobody can give.

    `answers`: the vocabulary; empty where questions bring their own candidates.
    """
    lines, complete = [], results.get("complete", {}).get("overall")
    for name, result in results.items():
        overall, floor = result["overall"], result["question_only_floor"]
        if overall < floor:
            lines.append(f"warning: {name} ({overall:.1f}) lies below the question-only floor ({floor:.1f}): the text "
                         "of the questions alone is worth more")
        if complete is not None and overall > complete and "protocol" not in result:
            lines.append(f"warning: {name} ({overall:.1f}) scores above complete input ({complete:.1f}): the model "
                         "does not use the modality, or there are too few questions")
    rows = {r.row: r.answer for r in records}
    unknown = [answer for answer in rows.values() if answers and answer not in set(answers)]
    if unknown:
        examples = ", ".join(repr(answer) for answer in sorted(set(unknown))[:3])
        lines.append(f"note: {len(unknown)} of {len(rows)} questions have an answer outside the vocabulary "
                     f"({examples}); they are counted as wrong")
    return lines


def accuracies(result: dict[str, Any]) -> dict[str, float]:
    """Type and modality to accuracy, without the counts."""
    return {name: cell["accuracy"] for part in ("by_type", "by_modality") for name, cell in result[part].items()}


def table(scenarios: dict[str, dict[str, Any]]) -> str:
    """The paper's columns, one line per scenario, with oracle and floor below each."""
    columns, total = columns_of({name for result in scenarios.values() for name in result["by_type"]})

    def line(title: str, kind: str, by_name: dict[str, float], overall: float | None) -> list[Any]:
        return [title, kind, *(by_name.get(name) for name in columns.values()), overall]

    lines = []
    for name, result in scenarios.items():
        lines.append(line(name, "model", accuracies(result), result["overall"]))
        for part, cell in result.get("by_part", {}).items():
            lines.append(line("", part, accuracies(cell), cell["overall"]))
        if result["oracle"] is not None:
            lines.append(line("", "oracle", result["oracle_by_type"], result["oracle"]))
        lines.append(line("", "floor", result["question_only_floor_by_type"], result["question_only_floor"]))
    return tabulate(lines, headers=["scenario", "", *columns, total], floatfmt=".1f", missingval="-")


def columns_of(types: set[str]) -> tuple[dict[str, str], str]:
    """Each column's header with the type or modality it shows, and the header of the last."""
    if not types.isdisjoint(AVQA_TYPES):
        return {name: name for name in AVQA_TYPES}, "All"         # Table 2
    columns = {}
    for modality, kinds in COLUMNS.items():
        short = {"Audio": "A", "Visual": "V", "Audio-Visual": "AV"}[modality]
        columns |= {f"{short} {kind}": f"{modality}/{name}" for kind, name in kinds.items()}
        columns[f"{short} Avg"] = modality
    return columns, "All Avg"
