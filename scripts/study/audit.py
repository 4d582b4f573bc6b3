"""What the published tables say about themselves: a claim, a verdict, the cells that show it.

Each point is recomputed from the figures as printed and from the question counts; nothing here
knows the outcome.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import cached_property
from itertools import combinations
from pathlib import Path

import yaml

from engine.errors import UsageError
from scripts.study.published import (
    CONFIGS,
    WHOLE,
    Exchange,
    PrintedRow,
    averages,
    chance,
    fits,
    follows,
    misfits,
    percent,
    possible_counts,
    printed_as,
    printed_averages,
    questions_right,
    rank_exchanges,
    read_tables,
    search_counts,
    shared_cells,
    wrong_averages,
)

CONFIRMED, REFUTED, UNDECIDED = "confirmed", "refuted", "not decidable"
LOCATION, COUNTING = "Audio-Visual/Location", "Audio-Visual/Counting"
SWAP: Exchange = {LOCATION: COUNTING, COUNTING: LOCATION}
EXCEPTIONS = {("pano_avqa_ours", "audio_missing"), ("avst_ours", "audio_missing")}
TABLE2_EXCEPTIONS = ("avsd_ours", "pano_avqa_ours", "avst")
SMALL = 250                               # bound up to which the small counts of Table 2 are listed


@dataclass(frozen=True)
class Point:
    claim: str
    verdict: str
    shown: str                            # Markdown, one paragraph


@dataclass(frozen=True)
class Material:
    """`tables`: published rows by table. `releases`: questions per type of each release of the
    MUSIC-AVQA test set; `floors`: how many of them the question-only floor has right. `avqa`: the
    counts per type that Table 2 is said to imply; `stated`: the paper's size of that test set.
    """

    tables: dict[str, list[PrintedRow]]
    releases: dict[str, dict[str, int]]
    floors: dict[str, int]
    avqa: dict[str, int]
    stated: int

    @cached_property
    def rows(self) -> list[PrintedRow]:
        """The rows of Tables 1 and 3, those printed in both once."""
        once: dict[tuple, PrintedRow] = {}
        for row in [*self.tables["table1"], *self.tables["table3"]]:
            once.setdefault((row.scenario, row.overall, *sorted(row.cells.items())), row)
        return list(once.values())

    @cached_property
    def reading(self) -> Exchange:
        """The reading of the headings of Tables 1 and 3 that most cells fit."""
        return rank_exchanges(self.rows, self.releases)[0][1]

    def counts_of(self, row: PrintedRow) -> dict[str, int]:
        """The questions of the release that most cells of a row of Tables 1 and 3 fit."""
        fitting = fits(row, self.reading, self.releases)
        return self.releases[max(fitting, key=fitting.get)]

    def wrong_averages(self, row: PrintedRow) -> dict[str, tuple[int, int]]:
        return wrong_averages(row, row.by_type(self.reading), self.counts_of(row))

    def find(self, table: str, name: str, scenario: str) -> PrintedRow:
        for row in self.tables.get(table, ()):
            if (row.name, row.scenario) == (name, scenario):
                return row
        raise UsageError(f"configs/tables/{table}.yaml: 'published' lacks {name} with {scenario}; the audit needs it")


def read_material(counts: Path = CONFIGS / "published" / "question_counts.yaml") -> Material:
    content = yaml.safe_load(counts.read_text())
    music = content["music_avqa"]
    return Material(read_tables(), {name: part["by_type"] for name, part in music.items()},
                    {name: part["floor"] for name, part in music.items()}, content["avqa"]["by_type"],
                    content["avqa"]["stated"])


def release_of(row: PrintedRow, exchange: Exchange, releases: dict[str, dict[str, int]]) -> str | None:
    """The one release whose questions give every cell of the row; None if not exactly one does."""
    whole = [name for name, n in fits(row, exchange, releases).items() if n == len(row.cells)]
    return whole[0] if len(whole) == 1 else None


def column_exchange(m: Material) -> Point:
    ranked = rank_exchanges(m.rows, m.releases)
    total = sum(len(row.cells) for row in m.rows)
    (most, best), second = ranked[0], ranked[1][0]
    as_printed = next(n for n, exchange in ranked if not exchange)
    others = max(n for n, exchange in ranked if exchange not in ({}, best))
    decided = most == total > second
    verdict = CONFIRMED if decided and best == SWAP else REFUTED if decided else UNDECIDED
    named = f"with {' and '.join(best)} exchanged" if best else "read in no other way"
    return Point(
        "Tables 1 and 3: the Audio-Visual headings Loc and Cnt stand over each other's columns", verdict,
        f"Of {total} cells in {len(m.rows)} different rows, {as_printed} are whole numbers of questions under the "
        f"headings as printed, {most} {named}, at most {others} with any other two exchanged. So read, the "
        f"Audio-Visual and overall averages follow from the cells in {following(m, best)} rows; as printed, in "
        f"{following(m, {})}.")


def following(m: Material, exchange: Exchange) -> int:
    """Rows whose Audio-Visual and overall averages follow from their cells, read by `exchange`."""
    wrong = [wrong_averages(row, row.by_type(exchange), m.counts_of(row)) for row in m.rows]
    return sum("Audio-Visual" not in parts and "overall" not in parts for parts in wrong)


def mixed_releases(m: Material) -> Point:
    releases = {row.title: release_of(row, m.reading, m.releases) for row in m.rows}
    used = {name: [row for row in m.rows if releases[row.title] == name] for name in m.releases}
    decided = all(releases.values())
    verdict = UNDECIDED if not decided else CONFIRMED if all(used.values()) else REFUTED
    strays = [n for row in m.rows if releases[row.title]
              for name, n in fits(row, m.reading, m.releases).items() if name != releases[row.title]]
    listed = [f"{len(rows)} rows fit only `{name}` ({sum(m.releases[name].values()):,} questions)"
            for name, rows in used.items()]
    rarer = min(used, key=lambda name: len(used[name]))
    return Point(
        "Tables 1 and 3 mix two releases of the test set", verdict,
        f"{', '.join(listed)}, {list(releases.values()).count(None)} fit none or both. On `{rarer}`: "
        f"{', '.join(sorted({row.label for row in used[rarer]})) or 'none'}. On the release that is not its own, a "
        f"row fits in at most {max(strays, default=0)} of nine cells. The paper states the size of `json` only.")


def average_over_questions(m: Material) -> Point:
    by_questions = by_types = total = 0
    for row in m.rows:
        cells = row.by_type(m.reading)
        parts = averages(cells, m.counts_of(row))
        total += len(parts)
        by_questions += len(parts) - len(m.wrong_averages(row))
        for part in parts:
            values = [value for name, value in cells.items() if part in ("overall", name.split("/")[0])]
            by_types += abs(sum(values) / len(values) - printed_averages(row)[part]) <= 1
    verdict = CONFIRMED if by_questions >= 0.9 * total else REFUTED if by_types >= 0.9 * total else UNDECIDED
    return Point("Avg and All Avg are means over questions, not over types", verdict,
                 f"Of {total} printed averages, {by_questions} are exactly the mean over questions, rounded; "
                 f"{by_types} are within 0.01 of the mean over types.")


def inconsistent_rows(m: Material) -> Point:
    odd = [(row, wrong) for row in m.rows if (wrong := m.wrong_averages(row))]
    listed = [f"{row.title}: " + ", ".join(f"{part} printed {percent(printed_averages(row)[part])}, from the cells "
                                         f"{printed_as(*pair)}" for part, pair in wrong.items())
            for row, wrong in odd]
    same = {(row.name, row.scenario) for row, _ in odd} == EXCEPTIONS
    return Point("Tables 1 and 3: averages do not follow in Pano-AVQA + ours and AVST + ours with audio missing",
                 CONFIRMED if same else REFUTED,
                 f"{'; '.join(listed) or 'Every average follows from its cells'}. Which figures are misprinted is not "
                 "decidable.")


def shared_audio(m: Material) -> Point:
    a, b = (m.find("table1", name, "audio_missing") for name in ("avsd_ours", "avst_ours"))
    types = [name for name in a.cells if name.startswith("Audio/")]
    same = set(types) <= set(shared_cells(a, b)) and a.modalities["Audio"] == b.modalities["Audio"]
    others = max(len(shared_cells(x, y)) for x, y in combinations(m.rows, 2)
                 if x.scenario == y.scenario and {x.name, y.name} != {a.name, b.name})
    values = " / ".join(percent(v) for v in (*(a.cells[t] for t in types), a.modalities["Audio"]))
    return Point("Table 1: AVSD + ours and AVST + ours with audio missing share all three audio figures",
                 CONFIRMED if same else REFUTED,
                 f"{values} in the first row. Any other two rows of one scenario agree in at most {others} of nine "
                 "cells. Whether this is chance or a copy is not decidable.")


def reversed_rows(m: Material) -> Point:
    """Held against the smallest counts that the other rows allow the rare types."""
    ours, others = ([r for r in m.tables["table2"] if (r.name == "avsd_ours") == own] for own in (True, False))
    types = list(ours[0].cells)
    back = dict(zip(types, reversed(types), strict=True))
    rare = {name: int(counts[0]) for name in types
            if len(counts := possible_counts((row.cells[name] for row in others), SMALL))}
    good = {name: sum(len(rare) - len(misfits({t: row.by_type(exchange)[t] for t in rare}, rare)) for row in ours)
            for name, exchange in (("printed", {}), ("reversed", back))}
    total = len(rare) * len(ours)
    if not total or good["printed"] == good["reversed"]:
        verdict = UNDECIDED
    else:
        verdict = CONFIRMED if good["reversed"] == total else REFUTED if good["printed"] == total else UNDECIDED
    first, last = types[0], types[-1]
    right = questions_right(ours[0].cells[last], rare[first]) if first in rare else None
    example = f" {percent(ours[0].cells[last])} under {last} is {right}/{rare[first]}, as {first} has." if right else ""
    return Point("Table 2 lists the eight types of AVSD + ours in reverse order", verdict,
                 f"The {len(others)} other rows allow the rare types no fewer than "
                 f"{', '.join(f'{n} ({name})' for name, n in rare.items())} questions. Of the {total} cells of these "
                 f"types in the two rows, {good['printed']} are whole numbers as printed, {good['reversed']} reversed."
                 f"{example}")


def implied_counts(m: Material) -> Point:
    rows = m.tables["table2"]
    cells, totals = [row.by_type(row.names) for row in rows], [row.overall for row in rows]
    claimed = [m.avqa[name] for name in cells[0]]
    claim = f"Table 2 is about {sum(claimed):,} questions, not the {m.stated:,} of the text"
    sets, hits = search_counts(cells, totals, m.stated)
    if not len(sets):
        return Point(claim, REFUTED, f"No counts of at most {m.stated:,} questions in all fit every cell.")
    best, most, second = sets[0].tolist(), int(hits[0]), int(hits[1]) if len(hits) > 1 else 0
    verdict = UNDECIDED if most == second else CONFIRMED if best == claimed else REFUTED
    rare = {m.avqa[t]: possible_counts((c[t] for c in cells), SMALL) for t in m.avqa if m.avqa[t] <= SMALL}
    only = all(set(counts) == set(range(n, SMALL + 1, n)) for n, counts in rare.items())
    listed = [f"{name} {n:,}" for name, n in zip(cells[0], best, strict=True)]
    return Point(claim, verdict,
                 f"All eight counts with at most {m.stated:,} questions in all were searched, AVSD + ours in reverse: "
                 f"{len(sets):,} sets fit every cell. The best, {', '.join(listed)}, also gives {most} of {len(rows)} "
                 f"totals, the next {second}. Up to {SMALL}, the rare types can have {'' if only else 'not '}only "
                 f"multiples of {', '.join(map(str, rare))} questions. Larger totals than the text's were not tried.")


def table2_totals(m: Material) -> Point:
    odd = [(row, wrong["overall"]) for row in m.tables["table2"]
           if "overall" in (wrong := wrong_averages(row, row.by_type(row.names), m.avqa))]
    same = [(row.name, row.scenario) for row, _ in odd] == [(name, "audio_missing") for name in TABLE2_EXCEPTIONS]
    listed = [f"{row.title}: printed {percent(row.overall)}, from the cells {printed_as(*pair)}" for row, pair in odd]
    return Point("Table 2: with these counts all totals follow, but for three rows with audio missing",
                 CONFIRMED if same else REFUTED, f"{'; '.join(listed) or 'Every total follows from its cells'}.")


def same_in_both(m: Material) -> Point:
    ours, plain = ([m.find("table2", name, f"{missing}_missing") for missing in ("visual", "audio")]
                   for name in ("avsd_ours", "avsd"))
    same = ours[0].cells == ours[1].cells and ours[0].overall != ours[1].overall
    apart = max(abs(plain[0].cells[t] - plain[1].cells[t]) for t in plain[0].cells)
    return Point("Table 2: AVSD + ours has the same eight cells in both scenarios, but another total",
                 CONFIRMED if same else REFUTED,
                 f"Totals {' and '.join(percent(r.overall) for r in ours)}. Plain AVSD, too, is nearly the same in "
                 f"both: {' and '.join(percent(r.overall) for r in plain)}, cells at most {percent(apart)} apart.")


def below_floor(m: Material) -> Point:
    sizes = {name: sum(counts.values()) for name, counts in m.releases.items()}
    releases = {row.title: release_of(row, m.reading, m.releases) for row in m.rows}
    below = [row for row in m.rows if (release := releases[row.title])
             and row.overall * sizes[release] < WHOLE * m.floors[release]]
    asked = m.find("table1", "avst", "audio_missing")
    listed = ", ".join(f"{row.title} ({percent(row.overall)})" for row in below) or "no row"
    floors = [f"{100 * right / sizes[name]:.1f} on `{name}`" for name, right in m.floors.items()]
    return Point("Table 1: plain AVST with audio missing is below a guess from the question alone",
                 CONFIRMED if asked.title in {row.title for row in below} else REFUTED,
                 f"The majority answer for the text of the question, learned from the validation file, reaches "
                 f"{', '.join(floors)}. Below it: {listed}. What stood for the missing modality in the plain rows is "
                 "not stated.")


def margins(m: Material) -> Point:
    n, listed, errors = sum(m.releases["json_update"].values()), [], []
    for scenario in ("audio_missing", "visual_missing"):
        ours = m.find("table3", "rmm_avr", scenario)
        others = [row for row in m.tables["table3"] if row.scenario == scenario and row.name != ours.name]
        rival = max(others, key=lambda row: row.overall)
        pair = [100 * math.sqrt(row.overall * (WHOLE - row.overall) / n) / WHOLE for row in (ours, rival)]
        errors += pair
        gap = (ours.overall - rival.overall) / 100
        listed.append(f"{scenario.replace('_', ' ')} {percent(ours.overall)} against {percent(rival.overall)} "
                    f"({rival.name}), {gap:.2f} points or {gap / math.hypot(*pair):.1f} standard errors apart")
    return Point("Table 3 gives one run per row; the standard error of an accuracy is about 0.5 points",
                 CONFIRMED if all(0.45 <= error < 0.55 for error in errors) else REFUTED,
                 f"{min(errors):.2f} to {max(errors):.2f} from the number of questions alone. Against the best "
                 f"compared method: {'; '.join(listed)}, errors taken as independent. A paired test needs the "
                 "predictions.")


def repeated_figures(m: Material) -> Point:
    """Rows that several tables print, which must agree under the headings of the rows."""
    pairs = [(("table1", "avst"), other) for other in (("table3", "plain"), ("table4", "plain"), ("table5", "plain"))]
    pairs += [(("table1", "avst_ours"), other) for other in (("table3", "rmm_avr"), ("table4", "rmm_avr"),
                                                             ("table5", "slots_75"), ("table6", "steps_10"))]
    pairs += [(("table4", "rmm"), ("table6", "rmm"))]
    differ = []
    for (one, other), scenario in ((p, s) for p in pairs for s in ("audio_missing", "visual_missing")):
        a, b = m.find(*one, scenario), m.find(*other, scenario)
        if (a.overall, b.modalities or a.modalities, b.cells or a.cells) != (b.overall, a.modalities, a.cells):
            differ.append(f"{other[0]} {b.title}")
    return Point("Figures printed in several tables agree under the headings of the rows",
                 REFUTED if differ else CONFIRMED,
                 f"{2 * len(pairs)} pairs of rows compared, different: {', '.join(differ) or 'none'}. The caption of "
                 "Table 3 puts visual missing above; its row headings say audio missing there, as Table 1 does.")


def table4_totals(m: Material) -> Point:
    odd = [row for row in m.tables["table4"] if not any(follows(row, counts) for counts in m.releases.values())]
    same = [(row.name, row.scenario) for row in odd] == [("rmm_avr", "audio_missing")]
    return Point("Table 4: all totals but that of RMM + AVR with audio missing follow from the averages by modality",
                 CONFIRMED if same else REFUTED,
                 f"Following on neither release: {', '.join(row.title for row in odd) or 'none'}.")


def totals_alone(m: Material) -> Point:
    rows = m.tables["table5"] + m.tables["table6"]
    sizes = [sum(counts.values()) for counts in m.releases.values()]
    odd = [row for row in rows if all(questions_right(row.overall, n) is None for n in sizes)]
    return Point("Tables 5 and 6: every total is a whole number of questions", REFUTED if odd else UNDECIDED,
                 f"No whole number on either release: {', '.join(row.title for row in odd) or 'none'}. But on so many "
                 f"questions {100 * chance(sizes[0]):.0f} % of all values are, so that these tables cannot be checked.")


POINTS = (column_exchange, mixed_releases, average_over_questions, inconsistent_rows, shared_audio, repeated_figures,
          table4_totals, totals_alone, margins, below_floor, reversed_rows, implied_counts, table2_totals, same_in_both)
