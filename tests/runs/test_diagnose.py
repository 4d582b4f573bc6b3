"""The diagnosis of a real, tiny run through its command."""

import json

import pytest
from commands import command

from engine.restore import restore
from models.methods.base import Method, Views
from scripts.study.diagnosis import examine_features

SMALL = ["train.max_steps=2", "train.epochs=1", "dataset.train_videos=12", "dataset.val_videos=4",
         "dataset.test_videos=4", "dataset.channels=16", "train.batch_size=8", "avr.width=8", "avr.steps=3",
         "rmm.slots=5"]


@pytest.fixture(scope="module")
def diagnosis(tmp_path_factory):
    root = tmp_path_factory.mktemp("runs")
    done = command("main_train.py", *SMALL, f"dataset.root={root}/data", f"run.root={root}", "run.name=r")
    assert done.returncode == 0, done.stderr
    page = root / "page.md"
    done = command("scripts/diagnose.py", root / "r", "--steps", "--out", page)
    assert done.returncode == 0, done.stderr
    return json.loads((root / "r" / "diagnosis.json").read_text()), page.read_text(), root


def test_answers_agree_with_the_evaluation(diagnosis):
    measured, _, root = diagnosis
    scenarios = json.loads((root / "r" / "results.json").read_text())["scenarios"]
    for name, result in scenarios.items():
        assert measured["answers"][name]["accuracy"] == pytest.approx(result["overall"])


def test_the_released_protocol_stands_beside(diagnosis):
    """The released protocol stands beside the missing modality."""
    measured, page, _ = diagnosis
    assert {"audio_missing, released_noise", "visual_missing, released_noise"} < set(measured["answers"])
    assert "visual_missing, released_noise" in page


def test_a_table_is_diagnosed_only_when_it_is_trained(tmp_path):
    place = [f"run.root={tmp_path}", f"dataset.root={tmp_path}/data"]
    done = command("scripts/diagnose.py", "--table", "table4", "--rows", "rmm", "--seeds", "1", *place)
    assert done.returncode == 2 and "Traceback" not in done.stderr
    assert "row rmm of table table4 is not trained" in done.stderr and "scripts/reproduce.py table4" in done.stderr
    done = command("scripts/diagnose.py", "--table", "table4", "--rows", "rnm", *place)
    assert done.returncode == 2 and "no row 'rnm'; did you mean 'rmm'?" in done.stderr


def test_every_stage_is_compared_with_the_real_features(diagnosis):
    measured, page, _ = diagnosis
    stages = measured["features"]["audio_missing"]["stages"]
    assert set(stages) == {"recalled", "refined"}
    assert stages["recalled"]["visual"]["all"]["r2"] == 1            # nothing but the absent side is recalled
    assert stages["recalled"]["audio"]["all"]["r2"] < 0.5            # after two steps
    parts = [cell["n"] for type_, cell in stages["recalled"]["audio"].items() if type_ != "all"]
    assert sum(parts) == stages["recalled"]["audio"]["all"]["n"] > 0
    assert "| recalled | audio" in " ".join(page.split())


def test_addressing_is_nearly_uniform_and_all_steps_are_the_run(diagnosis):
    """The published addressing is nearly uniform and all steps equal the run."""
    measured, _, _ = diagnosis
    assert measured["features"]["visual_missing"]["addressing"]["entropy"] > 0.95
    assert set(measured["by_steps"]["audio_missing"]) == {"1", "2", "3"}
    assert measured["by_steps"]["audio_missing"]["3"] == pytest.approx(measured["answers"]["audio_missing"]["accuracy"])


class Doubled(Method):
    """Answers on twice of what is there, so that "real" is not what the backbone encoded."""

    keeps_present = False

    def fill_in(self, features):
        return features.with_(audio=2 * features.audio, visual=2 * features.visual)

    def views(self, features):
        return Views({"complete": self.fill_in(features)})


def test_real_is_what_the_run_itself_answers_on(diagnosis):
    run = restore(diagnosis[2] / "r" / "best.pt", ["runtime.device=cpu", "evaluate.batch_size=8"])
    run.model.method = Doubled()
    examined = examine_features(run, "test")
    cells = examined["audio_missing"]["stages"]["stand-in"]
    assert cells["visual"]["all"]["r2"] == pytest.approx(1) and cells["visual"]["all"]["spread"] == pytest.approx(1)
    assert cells["audio"]["all"]["r2"] < 0.01
