"""scripts/export.py: what is written, that it answers the same, and what is refused."""

import json
import sys

import pytest
import torch
import yaml
from commands import SHORT, write_dataset
from safetensors.torch import load_file

from engine.checkpoint import load_checkpoint
from engine.errors import UsageError
from engine.exported import CARD, CONFIG, VOCABULARY, WEIGHTS
from engine.restore import load_trained
from scripts import export


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """A run of two steps with its results."""
    import main_train
    folder = tmp_path_factory.mktemp("runs")
    root = write_dataset(folder / "data")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sys, "argv", ["main_train.py", "dataset=music_avqa", f"dataset.root={root}", "dataset.stride=2",
                                    *SHORT, "train.max_steps=2", f"run.root={folder}", "run.name=r"])
        main_train.main()
    return folder / "r"


@pytest.fixture
def exporting(monkeypatch):
    def call(*arguments):
        monkeypatch.setattr(sys, "argv", ["export.py", *map(str, arguments)])
        export.main()
    return call


def test_the_exported_model_is_the_same(run, exporting, tmp_path):
    """Weights, vocabulary, shapes and options; only paths of the machine are cut."""
    exporting(run, tmp_path / "out")
    assert {path.name for path in (tmp_path / "out").iterdir()} == {WEIGHTS, CONFIG, VOCABULARY, CARD}
    before, after = load_checkpoint(run / "best.pt"), load_checkpoint(tmp_path / "out" / WEIGHTS)
    weights = load_file(tmp_path / "out" / WEIGHTS)
    assert weights.keys() == before["model"].keys()
    assert all(torch.equal(value, before["model"][name]) for name, value in weights.items())
    assert all(before[key] == after[key] for key in ("vocabulary", "epoch", "format"))
    assert load_trained(tmp_path / "out" / WEIGHTS).spec == load_trained(run / "best.pt").spec
    assert after["config"]["dataset"]["root"] == "data" and after["config"]["method"] == before["config"]["method"]


def test_the_exported_folder_is_a_checkpoint(run, exporting, tmp_path, monkeypatch, capsys):
    """Its evaluation gives the results of the run."""
    import main_test
    exporting(run, tmp_path / "out")
    root = load_checkpoint(run / "best.pt")["config"]["dataset"]["root"]
    monkeypatch.setattr(sys, "argv", ["main_test.py", "--checkpoint", str(tmp_path / "out"), f"dataset.root={root}"])
    main_test.main()
    found, = (tmp_path / "out").glob("results*.json")
    wanted = json.loads((run / "results.json").read_text())["scenarios"]
    assert json.loads(found.read_text())["scenarios"] == wanted


def test_the_card_has_table_command_data_and_licence(run, exporting, tmp_path):
    exporting(run, tmp_path / "out", "--licence", "cc-by-4.0")
    text = (tmp_path / "out" / CARD).read_text()
    head = yaml.safe_load(text.split("---")[1])
    assert head["license"] == "cc-by-4.0" and "rmm_avr" in head["tags"]
    overall = json.loads((run / "results.json").read_text())["scenarios"]["audio_missing"]["overall"]
    assert any(line.startswith("audio_missing") and f"{overall:.1f}" in line for line in text.splitlines())
    assert "python main_train.py dataset=music_avqa backbone=avst method=rmm_avr" in text
    assert "dataset.stride=2" in text and "method.rmm.slots=5" in text and "train.learning_rate=0.001" in text
    assert str(run.parent) not in text and "SHA-256" in text


def test_the_card_names_commands_that_fit_the_model(run):
    """Embedded scenes are no video, a multiple choice needs candidates, a dry run says so."""
    state = load_checkpoint(run / "best.pt")
    card = export.card(run / "best.pt", state, "mit")
    assert "answer.py" in card and "--choices" not in card and "random weights" not in card
    assert "--choices" in export.uses(state["config"], choices=4)
    synthetic = {**state["config"], "dataset": {**state["config"]["dataset"], "name": "synthetic"}}
    assert "answer.py" not in export.uses(synthetic, choices=0) and "main_test.py" in export.uses(synthetic, choices=0)
    assert "random weights" in export.card(run / "best.pt", {**state, "dry_run": True}, "mit")


def test_results_of_another_epoch_are_left_out(run, tmp_path):
    results = json.loads((run / "results.json").read_text())
    (tmp_path / "results.json").write_text(json.dumps({**results, "epoch": 99}))
    assert export.results_of(tmp_path / "best.pt", results["epoch"]) == "Not evaluated on the test questions."
    (tmp_path / "results.json").write_text("[")
    assert export.results_of(tmp_path / "best.pt", 1) == "Not evaluated on the test questions."


def test_nothing_is_replaced_unless_forced(run, exporting, tmp_path):
    out = tmp_path / "out"
    out.mkdir()
    (out / "notes.txt").write_text("mine")
    with pytest.raises(UsageError, match="is not empty; .*--force"):
        exporting(run, out)
    assert [path.name for path in out.iterdir()] == ["notes.txt"]
    exporting(run, out, "--force")
    exporting(run, out, "--force")
    assert (out / "notes.txt").read_text() == "mine" and (out / WEIGHTS).is_file()
    (tmp_path / "file").write_text("")
    with pytest.raises(UsageError, match="is no folder"):
        exporting(run, tmp_path / "file", "--force")


@pytest.mark.parametrize("name", [WEIGHTS, CONFIG, VOCABULARY])
@pytest.mark.parametrize("content", [b"", b"[]", b"{}", b"\xff" * 40, b"[" * 100_000])
def test_a_damaged_export_is_one_line(run, exporting, tmp_path, name, content):
    exporting(run, tmp_path / "out")
    (tmp_path / "out" / name).write_bytes(content)
    with pytest.raises(UsageError, match="model.safetensors"):
        load_trained(tmp_path / "out" / WEIGHTS)


def test_a_missing_part_is_named(run, exporting, tmp_path):
    exporting(run, tmp_path / "out")
    (tmp_path / "out" / CONFIG).unlink()
    with pytest.raises(FileNotFoundError, match="config.json"):
        load_trained(tmp_path / "out" / WEIGHTS)


def test_a_licence_is_a_name_of_the_hub(run, exporting, tmp_path):
    for text in ("", "my own", "mit\nbase_model: other", "\udcff"):
        with pytest.raises(UsageError, match="--licence .* is no name of a licence"):
            exporting(run, tmp_path / "out", "--licence", text)
    assert not (tmp_path / "out").exists()
