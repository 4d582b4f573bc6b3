"""What a row recalls and costs, against counts and logs that were written by hand."""

import json
import os
from types import SimpleNamespace

import pytest
import torch
from toy import SHAPE, SPEC, random_batch

from dataset.types import DataError
from models import build_model
from scripts import reproduce
from scripts.tables import cost
from scripts.tables.plan import PlannedRun

MEASURED = {"r2_audio": 0.5, "r2_visual": None, "parameters": 1234567, "milliseconds": 2.0, "place": "today on cpu"}


@pytest.fixture
def runs(tmp_path, monkeypatch):
    """Two seeds of a row, measured 0.5 and 0.7, and of another row without best.pt."""
    measured = []

    def measure(best):
        measured.append(best.parent.name)
        return {**MEASURED, "r2_audio": 0.5 + 0.2 * best.parent.name.endswith("2")}

    monkeypatch.setattr(cost, "measure", measure)
    planned = {}
    for row in ("ours", "gone"):
        planned[row] = {s: PlannedRun(f"{row}-{s}", "", tmp_path / f"{row}-{s}", [], None, []) for s in (1, 2)}
        for run in planned[row].values():
            run.folder.mkdir()
            (run.folder / "results.json").touch()
            (run.folder / "metrics.jsonl").write_text("".join(json.dumps({"seconds": s}) + "\n" for s in (10, 20.4)))
            if row == "ours":
                (run.folder / "best.pt").touch()
    return planned, measured


def report_of(planned) -> dict:
    report = {"rows": {row: {"label": row} for row in planned}}
    cost.add_costs(report, planned)
    return report


def test_costs_are_averaged_over_seeds_and_printed(runs):
    """0.5 and 0.7: 0.60 ± 0.14; 10 + 20.4 s; without best.pt only the log is known."""
    planned, _ = runs
    text = cost.cost_section(report_of(planned))
    lines = {row: [cell.strip() for cell in next(x for x in text.splitlines() if x.startswith(f"| {row} ")
                                                 ).split("|")[2:-1]] for row in planned}
    assert lines["ours"] == ["0.60 ± 0.14", "-", "30 ± 0", "1,234,567", "2.0 ± 0.0"]
    assert lines["gone"] == ["-", "-", "30 ± 0", "-", "-"] and "measured today on cpu" in text.replace("\n", " ")


def test_a_model_is_measured_again_when_it_is_newer(runs):
    planned, measured = runs
    report_of(planned)
    report_of(planned)
    assert sorted(measured) == ["ours-1", "ours-2"]
    folder = planned["ours"][1].folder
    later = (folder / "cost.json").stat().st_mtime + 5
    os.utime(folder / "best.pt", (later, later))
    report_of(planned)
    assert measured[2:] == ["ours-1"]


@pytest.mark.parametrize(("method", "options"), [
    ("plain", {"fill": "noise"}), ("conditional_avr", {"width": 16, "layers": 1, "rmm": {"enabled": False}})])
def test_r2_of_the_stand_in_is_that_of_its_definition(method, options):
    """1 - squared error / variance, of the real features and of what evaluation answers on."""
    torch.manual_seed(0)
    net = build_model(SPEC, {"name": "avst"}, {"name": method, **options}).eval()
    batch = random_batch(6)
    batch.presence[5, 0, 0] = False                        # not whole: its real feature is not known
    with torch.no_grad():
        r2 = cost.recalled(net, batch, torch.device("cpu"))
        kept = batch.map(lambda t: t[:5])
        real = net.encode(kept)
        kept.presence[..., 0] = False
        made = net.method.fill_in(net.encode(kept)).audio
    error = (real.audio - made).square().sum()
    variance = (real.audio - real.audio.flatten(0, 1).mean(dim=0)).square().sum()
    assert r2["r2_audio"] == pytest.approx(float(1 - error / variance), abs=1e-4)
    assert set(r2) == {"r2_audio", "r2_visual"}


def test_without_a_whole_clip_there_is_no_r2():
    net = build_model(SPEC, {"name": "avst"}, {"name": "plain"}).eval()
    batch = random_batch(2)
    batch.presence[:, SHAPE.segments - 1] = False
    assert cost.recalled(net, batch, torch.device("cpu")) == {"r2_audio": None, "r2_visual": None}


def test_data_that_are_gone_keep_no_other_table_from_its_report(tmp_path, monkeypatch, capsys):
    def gone(*_):
        raise DataError("data/x is not there")

    monkeypatch.setattr(reproduce, "add_costs", gone)
    monkeypatch.setattr(reproduce, "collect", lambda *_: {"runs": 1})
    (tmp_path / "report.md").write_text("# T\n\n## Accuracy\n\nthe table\n\n## More\n")
    monkeypatch.setattr(reproduce, "write_report", lambda *_: tmp_path / "report.md")
    grids = {name: SimpleNamespace(costs=name == "dear", title=name) for name in ("dear", "cheap")}
    run = PlannedRun("r", "", tmp_path / "r", [], None, [])
    plan = SimpleNamespace(tables={name: {"row": {1: run}} for name in grids})
    assert reproduce.write_reports(grids, plan, None, partial=False) == ["data/x is not there"]
    assert "cheap\n\nthe table" in capsys.readouterr().out
