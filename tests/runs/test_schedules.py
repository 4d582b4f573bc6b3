"""Runs with an optimiser and schedule of their own: continued, ended early, refused."""

import json
from pathlib import Path

import pytest
import torch

from engine.loop import Trainer

OWN = {
    "adamw": ["train.optimiser=adamw", "train.weight_decay=0.01", "train.warmup=0.4", "train.schedule=linear"],
    "sgd": ["train.optimiser=sgd", "train.momentum=0.9", "train.warmup=0.2", "train.lr_step=1"],
    "cosine": ["train.schedule=cosine"],
}


@pytest.fixture
def train(small, in_process):
    plain = [a for a in small if not a.startswith(("rmm.", "avr.", "run.name", "train.epochs"))]

    def call(name: str, *extra: str) -> tuple[int, str, str]:
        return in_process("main_train.py", *plain, "method=plain", f"run.name={name}", *extra)
    return call


def last(tmp_path: Path, name: str) -> dict:
    return torch.load(tmp_path / "runs" / name / "last.pt", weights_only=True)


@pytest.mark.parametrize("options", OWN.values(), ids=OWN)
def test_a_run_cut_off_ends_as_one_that_was_not(train, tmp_path, monkeypatch, options):
    options = [*options, "train.epochs=3"]
    assert train("whole", *options)[0] == 0
    run_epoch = Trainer.run_epoch

    def cut_off(self):
        if self.epoch == 1:
            raise KeyboardInterrupt
        run_epoch(self)

    with monkeypatch.context() as patch:
        patch.setattr(Trainer, "run_epoch", cut_off)
        assert train("parts", *options)[0] == 130
    code, out, err = train("parts", *options)
    assert code == 0 and "continuing" in out, err
    whole, parts = last(tmp_path, "whole"), last(tmp_path, "parts")
    assert whole["epoch"] == parts["epoch"] == 3 and whole["schedule"] == parts["schedule"]
    assert all(torch.equal(tensor, parts["model"][name]) for name, tensor in whole["model"].items())


def test_the_length_of_a_run_whose_rate_depends_on_it_is_fixed(train):
    assert train("r", "train.schedule=linear", "train.epochs=1")[0] == 0
    code, _, err = train("r", "train.schedule=linear", "train.epochs=2")
    assert code == 2 and "train.epochs was 1, now 2" in err
    assert train("step", "train.epochs=1")[0] == 0
    assert train("step", "train.epochs=2")[0] == 0


def test_patience_ends_a_run_and_more_of_it_goes_on(train, tmp_path, monkeypatch):
    """Validations of 40, 50, 50, 30, 60, ...: with a patience of two, the fourth ends the run."""
    scores = [40.0, 50.0, 50.0, 30.0, 60.0, 10.0, 20.0]
    monkeypatch.setattr(Trainer, "validate", lambda self: {"selection": scores[self.epoch - 1]})
    code, out, err = train("r", "train.epochs=7", "train.patience=2")
    assert code == 0 and last(tmp_path, "r")["epoch"] == 4, err
    best = torch.load(tmp_path / "runs" / "r" / "best.pt", weights_only=True)
    assert best["epoch"] == 2
    before = (tmp_path / "runs" / "r" / "last.pt").read_bytes()
    code, out, _ = train("r", "train.epochs=7", "train.patience=2")
    assert code == 0 and "already trained (4 epochs)" in out
    assert (tmp_path / "runs" / "r" / "last.pt").read_bytes() == before
    assert train("r", "train.epochs=7", "train.patience=3")[0] == 0
    assert last(tmp_path, "r")["epoch"] == 7


def test_a_run_from_before_these_options_is_continued(train, tmp_path):
    """Its saved configuration has none of them, and its schedule is StepLR's own state."""
    assert train("r", "train.epochs=1", "train.lr_step=1")[0] == 0
    path = tmp_path / "runs" / "r" / "last.pt"
    state = torch.load(path, weights_only=True)
    for key in ("optimiser", "weight_decay", "beta2", "momentum", "warmup", "schedule", "patience"):
        del state["config"]["train"][key]
    state["schedule"] = state["schedule"]["epoch"]
    torch.save(state, path)
    code, out, err = train("r", "train.epochs=3", "train.lr_step=1")
    assert code == 0 and "continuing" in out, err
    assert last(tmp_path, "r")["optimiser"]["param_groups"][0]["lr"] == pytest.approx(1e-6)
    code, _, err = train("r", "train.epochs=3", "train.lr_step=1", "train.optimiser=adamw")
    assert code == 2 and "train.optimiser was 'adam', now 'adamw'" in err


def test_a_recipe_for_another_backbone_writes_nothing(small, tmp_path, in_process):
    """A recipe for another backbone stops before anything is written."""
    code, _, err = in_process("main_train.py", "configs/recipe/pano_avqa.yaml", *small)
    assert code == 2 and err.count("error: ") == 1 and "Traceback" not in err
    assert "configs/recipe/pano_avqa.yaml is for backbone=pano_avqa, and backbone=avst is chosen" in err
    assert not (tmp_path / "runs").exists()


def test_a_linear_rate_is_zero_behind_the_last_step(train, tmp_path):
    """Of 2 epochs with 3 steps, half are warm-up."""
    assert train("r", "train.epochs=2", "train.warmup=0.5", "train.schedule=linear")[0] == 0
    assert json.loads((tmp_path / "runs/r/metrics.jsonl").read_text().splitlines()[-1])["step"] == 6
    assert last(tmp_path, "r")["optimiser"]["param_groups"][0]["lr"] == 0
