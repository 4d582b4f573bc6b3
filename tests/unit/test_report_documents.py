"""Tables between markers, on documents and reports written by hand."""

import json

import pytest

from engine.errors import UsageError
from scripts.tables.documents import documents, refresh, refreshed


def cell(mean: float, std: float | None, oracle: float | None = 90.0) -> dict:
    return {"mean": mean, "std": std, "seeds": 1 if std is None else 3, "oracle": oracle, "floor": 50.0}


@pytest.fixture
def reports(tmp_path):
    """One report of two rows, one of them with AVR and without a second seed."""
    rows = {"plain": {"label": "plain | zeros", "ave": None,
                      "scenarios": {"complete": cell(81.25, 1.04), "audio_missing": cell(60, 2)}},
            "ours": {"label": "ours", "scenarios": {"complete": cell(70.0, None)},
                     "ave": {"mean": 0.987, "std": 0.012, "skip": 0.964, "bound": None}}}
    runs = [{"row": row, "dataset": "synthetic"} for row in rows]
    folder = tmp_path / "reports" / "toy"
    folder.mkdir(parents=True)
    (folder / "report.json").write_text(json.dumps({"table": "toy", "rows": rows, "runs": runs}))
    return tmp_path / "reports"


def document(tmp_path, rows: str = "", body: str = "| old | table |\n") -> str:
    path = tmp_path / "page.md"
    path.write_text(f"Before\n\n<!-- table:toy{rows} begin -->\n{body}<!-- table:toy end -->\n\nafter | it\n")
    return path


def lines(text: str) -> list[list[str]]:
    """The cells of every line of a table, without the rule below the head."""
    rows = [[cell.strip() for cell in line.replace("\\|", "/").split("|")[1:-1]]
            for line in text.splitlines() if line[:1] == "|"]
    return [cells for cells in rows if not set("".join(cells)) <= {"-"}]


def test_the_table_is_written_between_its_markers_alone(tmp_path, reports):
    path = document(tmp_path)
    assert refresh([path], reports) == [path]
    text = path.read_text()
    assert text.startswith("Before\n\n<!-- table:toy begin -->\n\n|") and text.endswith(
        "|\n\n<!-- table:toy end -->\n\nafter | it\n")
    assert lines(text) == [
        ["", "seeds", "complete", "audio missing", "L_ave", "skip alone"],
        ["plain / zeros", "3", "81.2 ± 1.0", "60.0 ± 2.0", "", ""],
        ["ours", "1", "70.0", "-", "0.99 ± 0.01", "0.96"],
        ["*Bayes oracle*", "", "90.0", "90.0", "", ""], ["*question-only floor*", "", "50.0", "50.0", "", ""]]
    assert refresh([path], reports) == []                         # once more changes nothing


def test_costs_stand_between_markers_of_their_own(tmp_path, reports):
    """Of the rows asked for; a row that was not measured has none."""
    path = reports / "toy" / "report.json"
    report = json.loads(path.read_text())
    report["rows"]["ours"]["costs"] = {"r2_audio": {"mean": 0.514, "std": 0.01},
                                       "parameters": {"mean": 1234567, "std": 0}}
    path.write_text(json.dumps(report))
    page = document(tmp_path, rows=" costs rows=ours,plain")
    refresh([page], reports)
    assert [cells[:5:2] for cells in lines(page.read_text())[1:]] == [
        ["ours", "-", "1,234,567"], ["plain / zeros", "-", "-"]]
    assert "0.51 ± 0.01" in page.read_text()
    with pytest.raises(UsageError, match="has no row 'us'"):
        refreshed(page, page.read_text().replace("rows=ours,plain", "rows=us"), reports)


def test_rows_on_other_data_have_limits_of_their_own(tmp_path, reports):
    path = reports / "toy" / "report.json"
    report = json.loads(path.read_text())
    report["rows"]["ours"]["scenarios"]["complete"]["oracle"] = None
    report["runs"][1]["dataset"] = "music_avqa"
    path.write_text(json.dumps(report))
    text = refreshed(document(tmp_path), document(tmp_path).read_text(), reports)
    assert [line for line in lines(text) if "oracle" in line[0]] == [
        ["*Bayes oracle* (synthetic)", "", "90.0", "90.0", "", ""],
        ["*Bayes oracle* (music_avqa)", "", "-", "-", "", ""]]
    assert sum("floor" in line[0] for line in lines(text)) == 1


def test_rows_are_chosen_and_ordered(tmp_path, reports):
    text = refreshed(document(tmp_path), document(tmp_path, " rows=plain").read_text(), reports)
    assert [line[0] for line in lines(text)] == ["", "plain / zeros", "*Bayes oracle*", "*question-only floor*"]
    assert "L_ave" not in text                                     # no row that is shown has AVR
    both = refreshed(document(tmp_path), document(tmp_path, " rows=ours,plain").read_text(), reports)
    assert [line[0] for line in lines(both)][1:3] == ["ours", "plain / zeros"]


def test_a_changed_figure_is_found(tmp_path, reports):
    path = document(tmp_path)
    refresh([path], reports)
    true = path.read_text()
    path.write_text(true.replace("81.2", "81.3"))
    assert refresh([path], reports) == [path] and path.read_text() == true
    report = reports / "toy" / "report.json"
    report.write_text(report.read_text().replace("81.25", "82.25"))
    assert refreshed(path, true, reports) == true.replace("81.2", "82.2")


@pytest.mark.parametrize("text, message", [
    ("<!-- table:toy begin -->\n", "line 1: this table has no end"),
    ("x\n<!-- table:toy end -->\n", "line 2: this ends a table 'toy' that has not begun"),
    ("<!-- table:toy begin -->\n<!-- table:two end -->\n", "line 2: this ends a table 'two' that has not begun"),
    ("<!-- table:toy begin -->\n<!-- table:toy begin -->\n", "line 2: the table begun at line 1 has no end"),
    ("<!-- table:toy row=plain begin -->\n", "line 1: .* is no marker"),
    ("<!-- table:toy rows=plain end -->\n", "line 1: .* is no marker"),
    ("<!-- table:none begin -->\n<!-- table:none end -->\n", "line 1: .*none/report.json cannot be read"),
    ("<!-- table:toy rows=plane begin -->\n<!-- table:toy end -->\n", "line 1: .*no row 'plane'; did you mean 'plain'"),
])
def test_a_wrong_marker_is_one_error_and_nothing_is_written(tmp_path, reports, text, message):
    good, bad = document(tmp_path), tmp_path / "zz.md"
    bad.write_text(text)
    before = good.read_text()
    with pytest.raises(UsageError, match=f"zz.md, {message}"):
        refresh([good, bad], reports)
    assert good.read_text() == before and bad.read_text() == text


def test_a_damaged_report_is_named(tmp_path, reports):
    (reports / "toy" / "report.json").write_text("{")
    with pytest.raises(UsageError, match="page.md, line 3: .*toy/report.json cannot be read"):
        refresh([document(tmp_path)], reports)


def test_which_files_are_documents(tmp_path):
    for name in ("README.md", "docs/findings.md", "docs/reports/toy/report.md", "tests/x.md", "docs/plot.png"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text("")
    assert [str(path.relative_to(tmp_path)) for path in documents(tmp_path)] == ["README.md", "docs/findings.md"]
