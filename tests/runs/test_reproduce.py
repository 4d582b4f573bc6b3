"""The command for tables, shrunk: two rows of one seed on a tiny data set, from a shared start."""

import fcntl
import importlib.util
import json
import os
import signal
import subprocess
import sys
import time

import pytest
import torch
import yaml
from commands import ROOT, SHORT, command

from engine.errors import run_guarded
from scripts.tables import sweep


@pytest.fixture(scope="module")
def toy(own_data, tmp_path_factory):
    """A table file of two rows, and the overrides that make its runs as small as they get."""
    folder = tmp_path_factory.mktemp("tables")
    (folder / "start.yaml").write_text("method: plain\n")
    (folder / "rows.yaml").write_text("method: modality_dropout\n")
    (folder / "toy.yaml").write_text(yaml.safe_dump({
        "title": "A toy sweep", "start": str(folder / "start.yaml"), "rows_from": str(folder / "rows.yaml"), "seeds": 1,
        "compare_to": "dropout", "costs": True, "rows": {"dropout": {"label": "modality dropout", "overrides": []},
                                          "plain": {"label": "plain", "overrides": ["method=plain"]}}}))
    small = [x for x in SHORT if not x.startswith(("rmm.", "avr.", "train.epochs"))]
    return folder, [str(folder / "toy.yaml"), "dataset=music_avqa", "dataset.stride=2", f"dataset.root={own_data}",
                    *small, "train.epochs=1", "train.max_steps=1", f"run.root={folder / 'runs'}"]


@pytest.fixture
def reproduce(monkeypatch, capsys):
    """The command inside the test process, which saves the start-up: code, stdout, stderr."""
    spec = importlib.util.spec_from_file_location("reproduce", ROOT / "scripts" / "reproduce.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    monkeypatch.chdir(os.getcwd())                 # restored afterwards: the command goes to the repository root

    def call(*arguments) -> tuple[int, str, str]:
        monkeypatch.setattr(sys, "argv", ["scripts/reproduce.py", *map(str, arguments)])
        code = 0
        try:
            run_guarded(module.main)
        except SystemExit as stop:
            code = stop.code
        captured = capsys.readouterr()
        return code, captured.out, captured.err

    call.module = module
    return call


def test_a_terminated_sweep_ends_its_runs(toy):
    """A run holds its lock as long as it lives."""
    folder, arguments = toy
    endless = [a for a in arguments if not a.startswith(("train.epochs", "train.max_steps", "run.root"))]
    endless += ["train.epochs=100000", f"run.root={folder / 'endless'}"]
    process = subprocess.Popen([sys.executable, str(ROOT / "scripts/reproduce.py"), *endless], text=True,
                               stdout=subprocess.DEVNULL, stderr=subprocess.PIPE)
    deadline = time.time() + 120
    while time.time() < deadline and not list(folder.glob("endless/*/metrics.jsonl")):
        time.sleep(0.1)
    process.send_signal(signal.SIGTERM)
    _, err = process.communicate(timeout=60)
    assert process.returncode == 143 and "interrupted" in err and "Traceback" not in err
    with open(next((folder / "endless/.locks").iterdir())) as lock:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)


def test_a_sweep_trains_reports_and_does_not_train_again(toy, reproduce, monkeypatch):
    folder, arguments = toy
    code, out, err = reproduce(*arguments, "--plan", "--jobs", "2")
    plan = [json.loads(line) for line in out.splitlines()]
    assert [len(line["depends_on"]) for line in plan] == [0, 1, 1] and not (folder / "runs").exists()
    assert all(line["seconds"] > 0 for line in plan) and "hours, 2 at a time" in err
    done = command("scripts/reproduce.py", *arguments, "--jobs", "2")
    assert done.returncode == 0, done.stdout + done.stderr
    report = json.loads((folder / "runs/report-toy/report.json").read_text())
    assert (report["runs_done"], report["runs_planned"]) == (2, 2) and set(report["rows"]) == {"dropout", "plain"}
    for line in plan:
        results = json.loads((folder / "runs" / line["name"] / "results.json").read_text())
        assert results["config"]["run"]["name"] == line["name"]
        if line["depends_on"]:
            row = line["users"][0].split("/")[1].split()[0]
            assert report["rows"][row]["scenarios"]["complete"]["mean"] == results["scenarios"]["complete"]["overall"]
            assert f"{line['depends_on'][0]}/best.pt" in (folder / "runs" / line["name"] / "log.txt").read_text()
    assert report["comparisons"] == []                               # one seed is no test
    parts = torch.load(folder / "runs" / plan[1]["name"] / "best.pt", weights_only=True)["model"]
    assert report["rows"]["dropout"]["costs"]["parameters"]["mean"] <= sum(part.numel() for part in parts.values())
    assert "## Cost and recall" in (folder / "runs/report-toy/report.md").read_text()
    assert "| modality dropout" in done.stdout and "embedded benchmark" not in (
        folder / "runs/report-toy/report.md").read_text()

    page = folder / "page.md"                        # a document whose reports are those written now
    page.write_text("<!-- table:toy rows=plain begin -->\n<!-- table:toy end -->\n")
    monkeypatch.setattr(reproduce.module, "REPORTS", folder / "elsewhere")
    monkeypatch.setattr(reproduce.module, "documents", lambda: [page])
    before = {path: path.stat().st_mtime_ns for path in (folder / "runs").glob("*/last.pt")}
    code, _, err = reproduce(*arguments, "--out", folder / "elsewhere")
    assert code == 0 and (folder / "elsewhere/toy/bars.svg").is_file(), err
    assert len(before) == 3 and {path: path.stat().st_mtime_ns for path in before} == before
    assert f"{report['rows']['plain']['scenarios']['complete']['mean']:.1f} " in page.read_text()
    assert "none had changed" in reproduce("--refresh-docs")[1]
    lines = [json.loads(line) for line in reproduce(*arguments, "--plan")[1].splitlines()]
    assert all(line["done"] and line["seconds"] == 0 for line in lines)


@pytest.mark.parametrize("arguments, message", [
    (["embeded", "--plan"], "did you mean 'embedded'?"),
    (["embedded", "--refresh-docs"], "--refresh-docs takes no table"),
    (["embedded", "--seeds", "0"], "expected a whole number from 1 to 1,000,000"),
    (["embedded", "--shard", "3/2"], "expected I/N with 1 <= I <= N"),
    (["embedded", "--plan", "train.epocs=3"], "table embedded, row plain: unknown configuration key 'train.epocs'"),
    ([], "which table?"),
])
def test_a_wrong_command_is_one_clear_error(reproduce, arguments, message):
    code, _, err = reproduce(*arguments)
    assert code == 2 and message in err


def test_an_untimed_plan_needs_no_data_and_measures_nothing(reproduce, monkeypatch):
    monkeypatch.setattr(reproduce.module, "estimate", None)
    code, out, err = reproduce("table2", "--seeds", "1", "--plan", "--untimed", "dataset.root=none")
    assert code == 0 and "hours" not in err
    assert {json.loads(line)["seconds"] for line in out.splitlines()} == {None}


def test_failed_runs_end_the_command_with_their_last_words(reproduce, toy, tmp_path, monkeypatch):
    (tmp_path / "main_train.py").write_text("raise SystemExit('no space for this')")
    monkeypatch.setattr(sweep, "ROOT", tmp_path)
    code, _, err = reproduce(*toy[1], f"run.root={tmp_path / 'runs'}")
    assert code == 1 and "exit code 1" in err and "    no space for this" in err and "3 runs failed" in err


def test_a_shard_with_nothing_done_is_no_error(reproduce, toy, tmp_path):
    assert reproduce(*toy[1], f"run.root={tmp_path}", "--report-only", "--shard", "2/2")[0] == 0


def test_a_report_of_nothing_is_an_error(reproduce, toy, tmp_path):
    code, _, err = reproduce(*toy[1], f"run.root={tmp_path}", "--report-only")
    assert code == 2 and "no run of table toy is done" in err


def test_a_set_without_a_table_for_the_data_is_an_error(reproduce):
    code, _, err = reproduce("recall", "dataset=music_avqa", "--plan", "--untimed")
    assert code == 2 and "no table of 'recall' is for dataset=music_avqa" in err


def test_tables_are_listed(reproduce):
    code, out, _ = reproduce("--list")
    words, tables = [line.split()[0] for line in out.splitlines()], ROOT / "configs" / "tables"
    recall = words.index("recall:")
    assert code == 0 and words[0] == "all:"
    assert words[1:recall] == sorted(path.stem for path in tables.glob("*.yaml"))
    assert words[recall + 1:] == sorted(path.stem for path in (tables / "recall").glob("*.yaml"))
