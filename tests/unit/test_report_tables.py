"""Run folders written by hand to a report whose every number can be worked out by hand."""

import json
import math
import re
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from engine.checkpoint import save_checkpoint
from engine.errors import UsageError
from scripts.tables.collect import LAST_LAYER, collect
from scripts.tables.grid import Grid
from scripts.tables.plan import PlannedRun
from scripts.tables.plots import COLOURS, draw_bars, draw_panels, mixed, over_rows, over_scenarios
from scripts.tables.render import p_value, write_report
from scripts.tables.text import number, scenarios_of

QUESTIONS = 20
CONTENT = {
    "title": "A toy table", "start": None, "rows_from": "configs/embedded.yaml", "compare_to": "control",
    "rows": {"control": {"label": "the control", "overrides": []}, "ours": {"label": "ours | theirs", "overrides": []},
             "absent": {"label": "never run", "overrides": []}},
    "axis": {"name": "rmm.slots", "label": "slots", "values": {"ours": 5, "absent": 10}},
    "mixes": [{"label": "share", "start": "complete", "end": "audio_missing"}],
    "published": {"ours": {"complete": {"overall": 60.25, "by_type": {"Audio/Counting": 61.5}}}},
}
GRID = Grid.model_validate(CONTENT)
# row -> seed -> right answers among the 20 questions: complete, audio missing
RIGHT = {"control": {1: (10, 6), 2: (11, 7), 3: (12, 5)}, "ours": {1: (14, 6), 2: (16, 6), 3: (15, 6)}}


def write_run(folder: Path, right: dict[str, int], code: str | None = "abc1234") -> None:
    """The first `right[scenario]` of 20 answers are right; two types, two per video."""
    folder.mkdir(parents=True)
    scenarios, lines = {}, []
    for scenario, count in right.items():
        flags = [i < count for i in range(QUESTIONS)]
        by_type = {"Audio/Counting": {"accuracy": 10.0 * sum(flags[:10]), "n": 10},
                   "Visual/Location": {"accuracy": 10.0 * sum(flags[10:]), "n": 10}}
        by_modality = {"Audio": by_type["Audio/Counting"], "Visual": by_type["Visual/Location"]}
        scenarios[scenario] = {"overall": 5.0 * count, "n": QUESTIONS, "by_type": by_type, "by_modality": by_modality,
                               "question_only_floor": 20.0, "oracle": 100.0 if scenario == "complete" else 60.0}
        lines += [{"row": i, "question_id": 7 * i, "video_id": f"v{i // 2}", "scenario": scenario, "correct": flag}
                  for i, flag in enumerate(flags)]
    results = {"config": {"dataset": {"name": "synthetic"}}, "epoch": 2, "seed": 1, "scenarios": scenarios}
    (folder / "results.json").write_text(json.dumps(results))
    (folder / "predictions.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    (folder / "environment.json").write_text(json.dumps({
        "python": "3.11.7", "libraries": {"torch": "2.15.0"}, "device": "cpu: test", "threads": 1, "processes": 1,
        "code": code}))


@pytest.fixture
def planned(tmp_path):
    """Row -> seed -> run, two rows of three seeds done and a third one not."""
    planned = {}
    for row in GRID.rows:
        planned[row] = {s: PlannedRun(f"{row}-{s}", f"{row}{s}" * 8, tmp_path / f"{row}-{s}", ["a.yaml"], None,
                               ["complete", "audio_missing"]) for s in (1, 2, 3)}
        for seed, counts in RIGHT.get(row, {}).items():
            write_run(tmp_path / f"{row}-{seed}", dict(zip(("complete", "audio_missing"), counts, strict=True)))
    return planned


def written(planned, folder: Path, grid: Grid = GRID) -> str:
    return write_report(collect("toy", grid, planned), grid, folder, "python scripts/reproduce.py toy").read_text()


@pytest.fixture
def report(planned, tmp_path):
    folder = tmp_path / "report-toy"
    return written(planned, folder), json.loads((folder / "report.json").read_text()), folder


def cells(text: str, section: str, row: str) -> list[str]:
    """The cells of the first line of `row` in the section."""
    part = text.split(f"## {section}\n")[1].split("\n## ")[0]
    line = next(x for x in part.splitlines() if x.startswith(f"| {row} "))
    return [cell.strip() for cell in re.split(r"(?<!\\)\|", line)[2:-1]]


def test_means_spreads_oracle_and_floor(report):
    """ours, complete: 70, 80, 75: 75 ± 5; control 50, 55, 60: 55 ± 5; audio: 30 ± 0; 30, 35, 25."""
    text, content, _ = report
    assert cells(text, "Results", r"ours \| theirs") == ["3", "75.0 ± 5.0", "30.0 ± 0.0"]
    assert cells(text, "Results", "the control") == ["3", "55.0 ± 5.0", "30.0 ± 5.0"]
    assert cells(text, "Results", r"*Bayes oracle*") == ["", "100.0", "60.0"]
    assert cells(text, "Results", r"*question-only floor*") == ["", "20.0", "20.0"]
    cell = content["rows"]["ours"]["scenarios"]["complete"]
    assert (cell["mean"], cell["std"], cell["seeds"]) == (75.0, 5.0, 3)
    assert cell["by_seed"] == {"1": 70.0, "2": 80.0, "3": 75.0}
    assert "never run" not in text.split("Appendix")[0] and "Runs: 6 of 9 done; the figures" in text


def test_the_share_of_the_recoverable_gap(report):
    """complete: (75 - 20) / (100 - 20), spread 5 / 80; audio: (30 - 20) / (60 - 20)."""
    text, content, _ = report
    assert cells(text, "Share of the recoverable gap", r"ours \| theirs") == ["68.8 ± 6.2", "25.0 ± 0.0"]
    cell = content["rows"]["ours"]["scenarios"]["complete"]
    assert (cell["gap_share"], cell["gap_share_std"]) == pytest.approx((68.75, 6.25))


def test_the_papers_figures_stand_beside_ours(report):
    text, content, _ = report
    assert cells(text, "Beside the paper", r"ours \| theirs") == ["75.0 ± 5.0", "60.25", "+14.8"]
    assert content["rows"]["ours"]["scenarios"]["complete"]["beside_paper"] == pytest.approx(14.75)
    assert "the differences cannot" in text                        # the embedded benchmark is not the paper's data
    appendix = text.split("## Appendix A")[1]
    assert "| 100.0 ± 0.0 |" in appendix and "61.50" in appendix   # our and their Audio/Counting


def test_the_tests_between_rows(report):
    """Seed 1: 4 questions gained, none lost: p = 2/16; seed 2: 5: 2/32; seed 3: 3: 2/8. Joined: 3/2
    of the median.

    Over seeds the differences are 20, 25, 15: mean 20, t interval ± 4.302653 * 5 / sqrt(3).
    """
    text, content, _ = report
    compared = {(c["row"], c["scenario"]): c for c in content["comparisons"]}
    assert set(compared) == {("ours", "complete"), ("ours", "audio_missing")}
    c = compared["ours", "complete"]
    assert c["difference"] == pytest.approx(20) and c["p_questions"] == pytest.approx(1.5 * 2 / 16)
    half = 4.302653 * 5 / math.sqrt(3)
    assert c["seed_interval"] == pytest.approx([20 - half, 20 + half], abs=1e-4)
    assert c["p_questions_holm"] == pytest.approx(2 * c["p_questions"]) and c["verdict"] == "no difference shown"
    assert 0 <= c["bootstrap"][0] < 20 < c["bootstrap"][1]
    assert cells(text, "Differences", r"ours \| theirs")[3] == "+20.0" and "whole videos" in text


def test_the_diffusion_loss_stands_beside_rows_with_avr(planned, tmp_path):
    """Last epochs 0.9, 1.0, 1.1: 1.00 ± 0.10; 8 channels for 32 cannot come below 0.75."""
    avr = {"enabled": True, "objective": "noise"}
    for seed, last in ((1, 0.9), (2, 1.0), (3, 1.1)):
        folder = planned["ours"][seed].folder
        results = json.loads((folder / "results.json").read_text())
        results["config"]["method"] = {"avr": avr}
        (folder / "results.json").write_text(json.dumps(results))
        (folder / "metrics.jsonl").write_text("".join(
            json.dumps({"loss": {"ave": value, "total": 7}}) + "\n" for value in (2.5, last)))
        if seed != 2:                                              # a checkpoint that was deleted takes nothing away
            save_checkpoint(folder / "best.pt", {"config": {}, "vocabulary": {}, "spec": {}, "epoch": 1,
                                                 "model": {LAST_LAYER: torch.zeros(32, 8, 1)}})
    text = written(planned, tmp_path / "out")
    assert cells(text, "Results", r"ours \| theirs") == ["3", "75.0 ± 5.0", "30.0 ± 0.0", "1.00 ± 0.10", "0.75"]
    assert cells(text, "Results", "the control")[-2:] == ["", ""] and "predicting no noise at all gives 1.0" in text
    rows = json.loads((tmp_path / "out/report.json").read_text())["rows"]
    assert rows["control"]["ave"] is None and rows["ours"]["ave"]["by_seed"] == {"1": 0.9, "2": 1.0, "3": 1.1}
    assert rows["ours"]["ave"]["bound"] == 0.75
    (planned["ours"][1].folder / "metrics.jsonl").write_text("{}\n")
    with pytest.raises(UsageError, match="ours-1/metrics.jsonl cannot be read"):
        collect("toy", GRID, planned)


def test_a_row_with_one_seed_is_in_no_comparison(planned, tmp_path):
    """With two seeds it is compared, without a verdict; with one it is named as not tested."""
    for seeds, count in ((2, 2), (1, 0)):
        (planned["ours"][seeds + 1].folder / "results.json").unlink()
        text = written(planned, tmp_path / "out")
        content = json.loads((tmp_path / "out/report.json").read_text())
        assert [c["verdict"] for c in content["comparisons"]] == ["too few seeds"] * count
        assert (r"one seed alone, so not tested: ours \| theirs" in text) == (seeds == 1)


def test_where_the_figures_come_from(report):
    text, content, _ = report
    assert "Code: abc1234" in text and "torch 2.15.0; cpu: test; threads 1" in text
    assert "python main_train.py a.yaml" in text and "`python scripts/reproduce.py toy`" in text
    assert [run["name"] for run in content["runs"]] == [f"{r}-{s}" for r in RIGHT for s in (1, 2, 3)]
    assert all(run["digest"] and run["command"] for run in content["runs"])


def test_later_evaluations_of_some_runs_are_no_column(planned):
    path = planned["ours"][1].folder / "results.json"
    results = json.loads(path.read_text())
    half = results["scenarios"]["audio_missing"]
    results["scenarios"] |= {"audio_missing-ratio0.5": half, "both_missing": half}
    path.write_text(json.dumps(results))
    content = collect("toy", GRID, planned)
    assert scenarios_of(content["rows"]) == ["complete", "audio_missing"] and len(content["comparisons"]) == 2


def test_code_outside_a_checkout_is_unknown(planned, tmp_path):
    write_run(tmp_path / "absent-1", {"complete": 3}, code=None)
    content = collect("toy", GRID, planned)
    assert [run["code"] for run in content["runs"] if run["row"] == "absent"] == ["unknown"]
    assert list(content["rows"]["absent"]["scenarios"]) == ["complete"]      # one row lacks a scenario: a gap
    text = written(planned, tmp_path / "out")
    assert cells(text, "Results", "never run") == ["1", "15.0", "-"]


def test_data_without_an_oracle_and_a_table_without_a_reference(planned, tmp_path):
    for path in tmp_path.glob("*/results.json"):
        path.write_text(re.sub(r'"oracle": [\d.]+', '"oracle": null', path.read_text()))
    grid = Grid.model_validate({**CONTENT, "compare_to": None, "axis": None, "mixes": [], "published": {},
                                "scenarios": ["audio_missing"]})
    text = written(planned, tmp_path / "out", grid)
    assert "these data have no oracle" in text and "Nothing was tested" in text and "Beside the paper" not in text
    assert cells(text, "Results", "the control") == ["3", "30.0 ± 5.0"]
    assert sorted(p.name for p in (tmp_path / "out").iterdir()) == ["bars.png", "bars.svg", "report.json", "report.md"]


def test_curves_are_drawn_before_their_rows_are_done(planned, tmp_path):
    """An axis and mixes whose rows have no run yet leave levels and empty panels, no error."""
    grid = Grid.model_validate({**CONTENT, "axis": {**CONTENT["axis"], "values": {"absent": 1, "ours": 2}},
                                "mixes": [{"label": "m", "start": "complete", "end": "both_missing"}]})
    written({**planned, "ours": {}}, tmp_path / "out", grid)
    assert (tmp_path / "out" / "curve.svg").is_file() and (tmp_path / "out" / "mix.svg").is_file()


def test_damaged_and_unequal_runs_are_named(planned, tmp_path):
    path = tmp_path / "ours-2" / "predictions.jsonl"
    whole = path.read_text()
    path.write_text(whole.replace('"question_id": 14', '"question_id": 15'))
    with pytest.raises(UsageError, match="toy.*not tested on the same questions"):
        collect("toy", GRID, planned)
    path.write_text(whole[:-10])
    with pytest.raises(UsageError, match="ours-2/predictions.jsonl cannot be read.*run again"):
        collect("toy", GRID, planned)
    wrong = {"config": {}, "epoch": 1, "scenarios": {"complete": {"overall": []}}}
    (tmp_path / "ours-2" / "results.json").write_text(json.dumps(wrong))
    with pytest.raises(UsageError, match="ours-2/results.json cannot be read.*run again"):
        collect("toy", GRID, planned)
    (tmp_path / "ours-2" / "results.json").write_text("{")
    with pytest.raises(UsageError, match="ours-2/results.json cannot be read"):
        collect("toy", GRID, planned)


def test_calibration_stands_where_a_table_asks_for_it(planned, tmp_path):
    """All answers with confidence 0.5: complete, ours, |0.5 - 0.7|, 0.3 and 0.25: 25 ± 5."""
    for path in tmp_path.glob("*/predictions.jsonl"):
        path.write_text(path.read_text().replace('"correct"', '"confidence": 0.5, "correct"'))
    asking = Grid.model_validate({**CONTENT, "calibration": True})
    text = written(planned, tmp_path / "out", asking)
    assert cells(text, "Calibration", r"ours \| theirs") == ["25.0 ± 5.0", "20.0 ± 0.0"]
    cell = json.loads((tmp_path / "out" / "report.json").read_text())["rows"]["ours"]["scenarios"]["complete"]
    assert (cell["ece"], cell["ece_std"]) == pytest.approx((25.0, 5.0))
    assert "(calibration.svg)" in text and (tmp_path / "out" / "calibration.png").is_file()
    assert "## Calibration" not in written(planned, tmp_path / "without")
    (planned["ours"][1].folder / "predictions.jsonl").write_text(json.dumps(
        {"row": 0, "question_id": 0, "video_id": "v", "scenario": "complete", "correct": True}) + "\n")
    with pytest.raises(UsageError, match="ours-1/predictions.jsonl cannot be read"):
        collect("toy", asking, planned)


def test_curves_over_rows_and_over_scenarios(planned, tmp_path):
    """Every point is a cell of the report, in the order of the axis; rows not done leave a gap."""
    over = {"label": "share", "curves": {"all": {"ours": 100, "absent": 50, "control": 5}}}
    along = [{"label": "lost", "values": {"audio_missing": 100, "complete": 0}}]
    grid = Grid.model_validate({**CONTENT, "row_curves": over, "scenario_curves": along})
    report = collect("toy", grid, planned)
    by_scenario = draw_panels(over_rows(report, grid.row_curves)).axes
    assert [axes.get_ylabel() for axes in by_scenario] == ["complete (%)", "audio missing (%)"]
    assert by_scenario[0].lines[0].get_xydata().tolist() == [[5, 55], [100, 75]]
    axes, = draw_panels(over_scenarios(report, grid.scenario_curves)).axes
    drawn = {line.get_label(): line.get_xydata().tolist() for line in axes.lines}
    assert drawn == {"the control": [[0, 55], [100, 30]], "ours | theirs": [[0, 75], [100, 30]]}
    text = written(planned, tmp_path / "out", grid)
    assert "(rows.svg)" in text and "(scenarios.svg)" in text and (tmp_path / "out" / "rows.png").is_file()


def test_a_mix_runs_straight_between_its_ends(planned):
    cells, mix = collect("toy", GRID, planned)["rows"]["ours"]["scenarios"], GRID.mixes[0]
    assert mixed(cells, mix, 0) == [70, 80, 75] and mixed(cells, mix, 1) == [30, 30, 30]
    assert mixed(cells, mix, 0.25) == pytest.approx([60, 67.5, 63.75])


def test_plots_are_as_wide_as_a_column_and_small(report):
    """Plots are as wide as a column and told apart without colour."""
    text, _, folder = report
    for name in ("bars", "curve", "mix"):
        with Image.open(folder / f"{name}.png") as image:
            assert image.width == 990                               # 3.3 in at 300 dpi
            pixels = np.asarray(image.convert("RGB"))
        blue = [int(COLOURS[0][i:i + 2], 16) for i in (1, 3, 5)]
        assert (np.abs(pixels - np.array(blue)) < 3).all(axis=-1).sum() > 500
        svg = (folder / f"{name}.svg").read_text()
        assert len(svg) < 60_000                                    # hatches of dots would be ten times as much
        assert "accuracy" in svg or "gap" in svg
        assert f"({name}.png)" in text and f"({name}.svg)" in text
    assert "ours | theirs" in (folder / "bars.svg").read_text()


def test_a_single_seed_has_no_whisker(planned):
    for seed in (2, 3):
        (planned["ours"][seed].folder / "results.json").unlink()
    whiskers = draw_bars(collect("toy", GRID, planned), "", "gap_share").axes[0].containers[0].lines[2][0]
    drawn = [np.isfinite(segment).all() and len(segment) == 2 for segment in whiskers.get_segments()]
    assert drawn == [True, False]


@pytest.mark.parametrize("value, options, text", [
    (None, {}, "-"), (-0.04, {"sign": True}, "0.0"), (-3.14, {}, "\N{MINUS SIGN}3.1"), (2.0, {"sign": True}, "+2.0"),
    (59.14, {"digits": 2}, "59.14")])
def test_numbers_as_they_are_printed(value, options, text):
    assert number(value, **options) == text


def test_small_p_values_are_not_printed_as_zero():
    assert [p_value(p) for p in (None, 1e-9, 0.0123, 0.3)] == ["-", "< 0.0001", "0.0123", "0.30"]
