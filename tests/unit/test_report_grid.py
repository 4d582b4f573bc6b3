"""The YAML of a table is read strictly."""

import re

import pytest
import yaml
from unit.toy_plan import GRID

from engine.errors import UsageError
from scripts.tables.grid import SETS, Grid, find_grid, read_grid, table_names


@pytest.mark.parametrize("change, message", [
    ({"colour": "red"}, "unknown key 'colour'"),
    ({"scenario": ["complete"]}, "unknown key 'scenario'; did you mean 'scenarios'?"),
    ({"rows": {"a": {"lable": "x", "overrides": []}}}, "unknown key 'rows.a.lable'; did you mean 'label'?"),
    ({"rows": {}}, "key 'rows'"),
    ({"rows": {"a": {"label": "x", "data": {"music_avqq": {}}}}},
     "rows.a: data names the data set 'music_avqq'; did you mean 'music_avqa'?"),
    ({"rows": {"a": {"label": "x", "data": {"avqa": {"file": []}}}}},
     "unknown key 'rows.a.data.avqa.file'; did you mean 'files'?"),
    ({"rows": {"a": {"label": "x", "figures_of": "b"}}}, "figures_of names the row 'b'"),
    ({"title": None}, "key 'title'"),
    ({"scenarios": ["nothing_missing"]}, "key 'scenarios.0'"),
    ({"axis": {"name": "rmm.slots", "label": "K", "values": {"fev": 1, "few": 2}}}, "axis.values names the row 'fev'"),
    ({"compare_to": "dropuot"}, "compare_to names the row 'dropuot'; did you mean 'dropout'?"),
    ({"compare_to": {"few": "droput"}}, "compare_to names the row 'droput'"),
    ({"start": {"avqa": None}, "rows_from": {"synthetic": "x"}}, "start and rows_from must name the same data sets"),
    ({"rows_from": {}}, "key 'rows_from"),
    ({"recipes": {"default": {"row": ["x.yaml"]}}}, "unknown key 'recipes.default.row'; did you mean 'rows'?"),
    ({"published": {"many": {}}}, "published names the row 'many'"),
    ({"published": {"few": {"complete": {"overall": 101}}}}, "key 'published.few.complete.overall'"),
    ({"scenarios": ["complete"], "mixes": [{"label": "m", "start": "complete", "end": "audio_missing"}]},
     "the curves over 'm' need complete and audio_missing"),
    ({"scenarios": ["complete"], "scenario_curves": [{"label": "s", "values": {"complete": 0, "audio_half": 50}}]},
     "the curves over 's' need audio_half and complete"),
    ({"scenario_curves": [{"label": "s", "values": {"complete": 0, "audio_thrid": 50}}]}, "audio_thrid"),
    ({"row_curves": {"label": "r", "curves": {"ours": {"fev": 5}}}}, "row_curves names the row 'fev'"),
    ({"calibrated": True}, "unknown key 'calibrated'; did you mean 'calibration'?"),
])
def test_a_wrong_table_file_is_one_clear_error(tmp_path, change, message):
    path = tmp_path / "mine.yaml"
    path.write_text(yaml.safe_dump({**GRID, **change}))
    with pytest.raises(UsageError, match=re.escape(message)) as caught:
        read_grid(path)
    assert str(path) in str(caught.value)


@pytest.mark.parametrize("text", ["a: [", "- 1\n", "", "3"])
def test_a_file_that_is_no_table_is_one_error(tmp_path, text):
    (tmp_path / "mine.yaml").write_text(text)
    with pytest.raises(UsageError, match="mine.yaml"):
        find_grid(str(tmp_path / "mine.yaml"))


def test_the_tables_at_hand_are_valid():
    """The tables at hand are valid and an unknown name is one clear error."""
    assert "embedded" in table_names() and "plugin" in table_names("recall")
    assert len({*table_names(), *SETS}) == len(table_names()) + len(SETS)
    for name in table_names():
        assert find_grid(name)[1].rows
    with pytest.raises(UsageError, match="did you mean 'embedded'"):
        find_grid("embeded")


def test_a_row_may_have_several_references_and_is_never_its_own():
    rows = {key: {"label": key, "overrides": []} for key in "abc"}
    grid = Grid(**{**GRID, "rows": rows, "compare_to": {"a": ["b", "c"], "b": "c"}})
    assert [grid.references(key) for key in "abc"] == [["b", "c"], ["c"], []]
    assert [Grid(**{**GRID, "rows": rows, "compare_to": "b"}).references(key) for key in "abc"] == [["b"], [], ["b"]]
