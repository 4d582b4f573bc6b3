"""The audit of the published tables: arithmetic by brute force, verdicts on constructed tables."""

import json
import re
from collections import Counter
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import yaml
from commands import command
from hypothesis import given, settings
from hypothesis import strategies as st

from dataset.types import AVQA_TYPES, QUESTION_TYPES
from engine.errors import UsageError
from scripts.study.audit import (
    CONFIRMED,
    REFUTED,
    SWAP,
    UNDECIDED,
    average_over_questions,
    below_floor,
    column_exchange,
    implied_counts,
    inconsistent_rows,
    margins,
    mixed_releases,
    read_material,
    repeated_figures,
    reversed_rows,
    same_in_both,
    shared_audio,
    table2_totals,
    table4_totals,
    totals_alone,
)
from scripts.study.published import (
    PrintedRow,
    averages,
    chance,
    possible_counts,
    printed_as,
    questions_right,
    rank_exchanges,
    read_rows,
    search_counts,
    wrong_averages,
)

ROOT = Path(__file__).resolve().parents[2]
SHARED = ROOT.parent / "shared"
PAPER = SHARED / "paper" / "learning-trimodal-relation-eccv2024.md"
REAL = SHARED / "data" / "music_avqa"
MATERIAL = read_material()
FIRST, UPDATED = MATERIAL.releases["json"], MATERIAL.releases["json_update"]


def shown(right: int, n: int) -> int:
    """k/n as printed, in hundredths of a percent, by Python's own formatting."""
    return int(f"{100 * right / n:.2f}".replace(".", ""))


def constructed(seed: int, counts: dict[str, int], exchange: dict[str, str] | None = None, **changes) -> PrintedRow:
    """A row as a test run would print it, with headings exchanged if asked for."""
    rng = np.random.default_rng(seed)
    right = {name: int(rng.integers(n // 4, n)) for name, n in counts.items()}
    parts = {m: [name for name in counts if name.split("/")[0] == m] for m in ("Audio", "Visual", "Audio-Visual")}
    means = {m: shown(sum(right[t] for t in types), sum(counts[t] for t in types)) for m, types in parts.items()}
    under = {heading: (exchange or {}).get(heading, heading) for heading in counts}
    cells = {heading: shown(right[name], counts[name]) for heading, name in under.items()}
    row = PrintedRow("table1", f"row{seed}", f"row {seed}", "audio_missing", cells, means,
              shown(sum(right.values()), sum(counts.values())), {})
    return replace(row, **changes)


def of_rows(*rows: PrintedRow):
    return replace(MATERIAL, tables={**MATERIAL.tables, "table1": list(rows), "table3": []})


@given(st.integers(1, 400), st.integers(0, 10_000))
@settings(max_examples=300, deadline=None)
def test_a_value_fits_exactly_if_some_fraction_is_printed_as_it(n, value):
    fractions = [k for k in range(n + 1) if abs(10_000 * k / n - value) <= 0.5 + 1e-9]
    assert ([] if questions_right(value, n) is None else [questions_right(value, n)]) == fractions


@given(st.integers(1, 9_999), st.data())
@settings(max_examples=200, deadline=None)
def test_every_printed_share_gives_its_count_back(n, data):
    k = data.draw(st.integers(0, n))
    assert questions_right(shown(k, n), n) == k
    assert questions_right(int(printed_as(k, n).replace(".", "")), n) == k


def test_the_share_that_fits_by_luck():
    assert chance(1) == 2 / 10_001                                # 0.00 and 100.00
    assert chance(4) == 5 / 10_001
    assert chance(32) == (33 + 16) / 10_001                       # odd k/32 end in half a hundredth: two values each
    assert chance(10_000) == 1
    by_hand = {shown(k, 594) for k in range(595)}
    assert chance(594) == pytest.approx(len(by_hand) / 10_001) == pytest.approx(0.0595, abs=1e-4)


def test_averages_by_hand():
    counts = {"Audio/Counting": 4, "Audio/Comparative": 1, "Visual/Counting": 5}
    cells = {"Audio/Counting": 7500, "Audio/Comparative": 0, "Visual/Counting": 4000}
    assert averages(cells, counts) == {"Audio": (3, 5), "Visual": (2, 5), "overall": (5, 10)}
    row = PrintedRow("table1", "a", "a", "audio_missing", cells, {"Audio": 6000, "Visual": 4100}, 5000, {})
    assert wrong_averages(row, cells, counts) == {"Visual": (2, 5)}


@given(st.integers(0, 10**6), st.sampled_from([FIRST, UPDATED]))
@settings(max_examples=20, deadline=None)
def test_any_exchange_of_two_columns_is_found(seed, counts):
    rng = np.random.default_rng(seed)
    a, b = rng.permutation(len(QUESTION_TYPES))[:2]
    exchange = {QUESTION_TYPES[a]: QUESTION_TYPES[b], QUESTION_TYPES[b]: QUESTION_TYPES[a]}
    rows = [constructed(seed + i, counts, exchange) for i in range(8)]
    assert rank_exchanges(rows, MATERIAL.releases)[0] == (72, exchange)


def test_the_verdict_on_the_columns_follows_the_table():
    other = {"Audio/Counting": "Visual/Counting", "Visual/Counting": "Audio/Counting"}
    for exchange, verdict in ((SWAP, CONFIRMED), (None, REFUTED), (other, REFUTED)):
        rows = [constructed(seed, (FIRST, UPDATED)[seed % 2], exchange) for seed in range(8)]
        assert column_exchange(of_rows(*rows)).verdict == verdict
    rng = np.random.default_rng(0)
    noise = [constructed(seed, FIRST, cells={t: int(rng.integers(10_000)) for t in FIRST}) for seed in range(8)]
    assert column_exchange(of_rows(*noise)).verdict == UNDECIDED


def test_the_verdict_on_the_test_sets_follows_the_table():
    one = [constructed(seed, UPDATED) for seed in range(6)]
    assert mixed_releases(of_rows(*one)).verdict == REFUTED
    assert mixed_releases(of_rows(*one, constructed(9, FIRST))).verdict == CONFIRMED
    odd = constructed(9, FIRST)
    unfit = replace(odd, cells={**odd.cells, "Audio/Comparative": odd.cells["Audio/Comparative"] + 1})
    assert mixed_releases(of_rows(*one, unfit)).verdict == UNDECIDED


def test_the_verdicts_on_averages_follow_the_table():
    rows = [constructed(seed, UPDATED) for seed in range(6)]
    assert average_over_questions(of_rows(*rows)).verdict == CONFIRMED
    assert "Every average follows" in inconsistent_rows(of_rows(*rows)).shown
    assert inconsistent_rows(of_rows(*rows)).verdict == REFUTED

    def over_types(row: PrintedRow) -> PrintedRow:
        means = {m: [v for t, v in row.cells.items() if t.split("/")[0] == m] for m in row.modalities}
        return replace(row, modalities={m: round(sum(v) / len(v)) for m, v in means.items()},
                       overall=round(sum(row.cells.values()) / 9))
    assert average_over_questions(of_rows(*map(over_types, rows))).verdict == REFUTED
    raised = replace(rows[2], overall=rows[2].overall + 30)
    assert f"{rows[2].title}: overall printed" in inconsistent_rows(of_rows(*rows[:2], raised, *rows[3:])).shown


def of_table(name: str, rows: list[PrintedRow]):
    return replace(MATERIAL, tables={**MATERIAL.tables, name: rows})


def test_the_verdicts_on_the_other_tables_follow_the_table():
    table2, table4, table5 = (MATERIAL.tables[name] for name in ("table2", "table4", "table5"))
    straight = [replace(row, cells=row.by_type(row.names), names={}) for row in table2]
    assert reversed_rows(of_table("table2", straight)).verdict == REFUTED
    assert table4_totals(of_table("table4", [replace(r, overall=r.overall + 5) for r in table4])).verdict == REFUTED
    assert repeated_figures(of_table("table5", [replace(r, overall=r.overall + 1) for r in table5])).verdict == REFUTED
    assert totals_alone(of_table("table5", table5)).verdict == UNDECIDED
    unfit = next(v for v in range(5000, 6000)
                 if all(questions_right(v, sum(counts.values())) is None for counts in (FIRST, UPDATED)))
    assert totals_alone(of_table("table5", [replace(table5[0], overall=unfit)])).verdict == REFUTED


def changed(table: str, name: str, scenario: str, **changes):
    """The published material with one row changed."""
    rows = [replace(r, **changes) if (r.name, r.scenario) == (name, scenario) else r for r in MATERIAL.tables[table]]
    return of_table(table, rows)


def test_one_changed_row_changes_the_verdict_on_it():
    row = MATERIAL.find("table1", "avst_ours", "audio_missing")
    other = {**row.cells, "Audio/Counting": row.cells["Audio/Counting"] - 100}
    assert shared_audio(MATERIAL).verdict == CONFIRMED
    assert shared_audio(changed("table1", "avst_ours", "audio_missing", cells=other)).verdict == REFUTED
    assert below_floor(MATERIAL).verdict == CONFIRMED
    assert below_floor(changed("table1", "avst", "audio_missing", overall=6000)).verdict == REFUTED
    assert same_in_both(MATERIAL).verdict == table2_totals(MATERIAL).verdict == CONFIRMED
    total = MATERIAL.find("table2", "avsd_ours", "visual_missing").overall
    mended = changed("table2", "avsd_ours", "audio_missing", overall=total)
    assert same_in_both(mended).verdict == table2_totals(mended).verdict == REFUTED
    assert margins(MATERIAL).verdict == CONFIRMED
    few = {**MATERIAL.releases, "json_update": {"Audio/Counting": 100}}
    assert margins(replace(MATERIAL, releases=few)).verdict == REFUTED
    with pytest.raises(UsageError, match="lacks avsd_ours with audio_missing"):
        shared_audio(of_table("table1", MATERIAL.tables["table1"][:2]))


def test_the_search_for_counts_is_complete():
    """Against brute force over all pairs, for a table made from 7 and 11 questions."""
    right = [(3, 2), (5, 9), (1, 10), (6, 4), (2, 7)]
    rows = [{"a": shown(a, 7), "b": shown(b, 11)} for a, b in right]
    totals = [shown(a + b, 18) for a, b in right]
    sets, hits = search_counts(rows, totals, 40)
    fitting = {(a, b) for a in range(1, 41) for b in range(1, 41) if a + b <= 40 and all(
        any(shown(k, n) == row[t] for k in range(n + 1)) for row in rows for t, n in (("a", a), ("b", b)))}
    assert {tuple(s) for s in sets.tolist()} == fitting
    assert sets[0].tolist() == [7, 11] and hits[0] == 5
    assert possible_counts([shown(3, 7), shown(5, 7)], 30).tolist() == [7, 14, 21, 28]
    empty, none = search_counts([{"a": 3333, "b": 1}], [1], 40)
    assert len(empty) == len(none) == 0


def test_other_counts_than_the_claimed_refute_the_claim():
    assert implied_counts(replace(MATERIAL, avqa={**MATERIAL.avqa, "Where": 2058})).verdict == REFUTED


def test_reading_restores_the_printed_headings():
    """Reading puts the figures back under the printed headings."""
    content = {"rows": {"a": {"label": "A"}}, "published": {"a": {"audio_missing": {
        "overall": 36.60, "by_type": {"x": 1.29, "y": 2.00}}}}, "printed": {"*": {"x": "y", "y": "x"}}}
    row, = read_rows("t", content)
    assert row.cells == {"x": 200, "y": 129} and row.by_type(row.names) == {"x": 129, "y": 200} and row.overall == 3660
    with pytest.raises(UsageError, match="'printed' of row a must exchange"):
        read_rows("t", {**content, "printed": {"a": {"x": "y"}}})


TYPES = {"table1": QUESTION_TYPES, "table2": AVQA_TYPES, "table3": QUESTION_TYPES}


@pytest.mark.parametrize("table,types", TYPES.items())
def test_every_published_row_has_all_its_types_by_name(table, types):
    content = yaml.safe_load((ROOT / "configs" / "tables" / f"{table}.yaml").read_text())
    assert content["published"]
    for name, scenarios in content["published"].items():
        assert name in content["rows"] and set(scenarios) == {"audio_missing", "visual_missing"}
        for figures in scenarios.values():
            assert set(figures["by_type"]) == set(types)
            assert set(figures.get("by_modality", {})) == {t.split("/")[0] for t in types if "/" in t}


def test_the_yaml_corrects_the_headings_as_the_audit_finds_them():
    assert {tuple(sorted(row.names.items())) for row in MATERIAL.rows} == {tuple(sorted(MATERIAL.reading.items()))}
    assert reversed_rows(MATERIAL).verdict == CONFIRMED


def test_counts_add_up_to_the_releases():
    assert (sum(FIRST.values()), sum(UPDATED.values()), sum(MATERIAL.avqa.values())) == (9185, 9129, 16910)


def test_the_page_is_what_the_script_writes():
    done = command("scripts/audit_paper_tables.py")
    assert done.returncode == 0, done.stderr
    assert done.stdout.rstrip("\n") == (ROOT / "docs" / "paper_tables.md").read_text().rstrip("\n")


def test_other_annotations_than_the_stored_are_refused(tmp_path):
    record = {"video_id": "00000028", "question_id": 7, "type": '["Audio", "Counting"]', "question_deleted": 0,
              "question_content": "How many sounds?", "templ_values": "[]", "anser": "two"}
    for release in ("json", "json_update"):
        (tmp_path / release).mkdir()
        for split in ("val", "test"):
            (tmp_path / release / f"avqa-{split}.json").write_text(json.dumps([record]))
    done = command("scripts/audit_paper_tables.py", "--annotations", tmp_path)
    assert done.returncode == 2 and "Audio/Counting 1022 stored, 1 counted" in done.stderr
    assert "Traceback" not in done.stderr


@pytest.mark.skipif(not (REAL / "json" / "avqa-test.json").is_file(), reason="the real test files are not at hand")
@pytest.mark.parametrize("release", MATERIAL.releases)
def test_counts_are_those_of_the_real_files(release):
    records = json.loads((REAL / release / "avqa-test.json").read_text())
    assert Counter("/".join(json.loads(r["type"])) for r in records) == MATERIAL.releases[release]


@pytest.mark.skipif(not PAPER.is_file(), reason="the text of the paper is not at hand")
def test_the_figures_are_those_of_the_paper_in_the_printed_order():
    """Every row of figures of Tables 1-4 in the paper's text is in the YAML, by printed heading."""
    lines = re.sub(r"</?[bu]>", "", PAPER.read_text()).splitlines()
    for number, columns in ((1, 13), (2, 9), (3, 13), (4, 4)):
        start = next(i for i, line in enumerate(lines) if line.startswith(f"**Table {number}:**"))
        rows = [re.findall(r"(?<=\t)\d\d\.\d\d(?=\t|$)", line) for line in lines[start + 1:start + 22]]
        printed = [row for row in rows if len(row) == columns]
        in_print = [tuple(as_printed(row)) for row in MATERIAL.tables[f"table{number}"]]
        assert len(printed) == len(in_print) and sorted(map(tuple, printed)) == sorted(in_print)


def as_printed(row: PrintedRow) -> list[str]:
    """The figures from left to right, each average after the types of its modality."""
    values = []
    for modality in row.modalities or ("",):
        values += [v for heading, v in row.cells.items() if heading.split("/")[0] == modality or "/" not in heading]
        values += [row.modalities[modality]] if modality else []
    return [f"{v / 100:.2f}" for v in (*values, row.overall)]
