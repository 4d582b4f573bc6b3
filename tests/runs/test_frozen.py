"""A method plugged into a backbone that is not trained again, and a model tested anew."""

import json
import subprocess
import sys

import pytest
import torch
from commands import ROOT


@pytest.fixture
def train(small, in_process):
    plain = [a for a in small if not a.startswith(("method=", "rmm.", "avr.", "run.name", "train.epochs"))]

    def call(name: str, *extra: str) -> tuple[int, str, str]:
        return in_process("main_train.py", *plain, f"run.name={name}", "train.epochs=1", *extra)
    return call


@pytest.fixture
def run(tmp_path):
    def read(name: str) -> tuple[dict, dict]:
        """The weights of the best checkpoint, and the answers by scenario."""
        folder, answers = tmp_path / "runs" / name, {}
        for line in map(json.loads, (folder / "predictions.jsonl").open()):
            answers.setdefault(line["scenario"], []).append(line)
        return torch.load(folder / "best.pt", weights_only=True)["model"], answers
    return read


SMALL = ("method.width=16", "method.layers=1")


def test_a_frozen_backbone_answers_complete_input_as_before(train, run, tmp_path):
    """Its weights and the answers to complete input stay to the digit."""
    assert train("start", "method=plain")[0] == 0
    init = f"train.init={tmp_path / 'runs/start/best.pt'}"
    for name, method in (("conditional", ["method=conditional_avr", *SMALL]), ("retrieval", ["method=retrieval"]),
                         ("mean", ["method=plain", "method.fill=mean"])):
        code, _, err = train(name, *method, init, "train.frozen=true")
        assert code == 0, err
        (before, answers), (after, now) = run("start"), run(name)
        assert all(torch.equal(before[key], after[key]) for key in before if not key.startswith("method."))
        assert now["complete"] == answers["complete"] and len(now["complete"]) > 10
    assert (run("retrieval")[0]["method.owner"] >= 0).any() and run("mean")[0]["method.fill.mean_audio"].any()


def test_two_processes_fill_the_bank_of_one(train, run, small, tmp_path):
    """Two times four questions a step are eight: the same videos in the same places."""
    assert train("start", "method=plain")[0] == 0
    options = ["method=retrieval", "train.epochs=1", "train.frozen=true",
               f"train.init={tmp_path / 'runs/start/best.pt'}"]
    assert train("one", *options)[0] == 0
    plain = [a for a in small if not a.startswith(("method=", "rmm.", "avr.", "run.name", "train.epochs"))]
    launch = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
    done = subprocess.run([*launch, str(ROOT / "main_train.py"), *plain, *options, "train.batch_size=4",
                           "run.name=two"], cwd=ROOT, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr[-2000:]
    (one, answers), (two, now) = run("one"), run("two")
    assert (one["method.owner"] >= 0).sum() == 8 and torch.equal(one["method.owner"], two["method.owner"])
    for key in ("audio", "visual", "audio_scale.mean", "visual_scale.variance"):
        assert torch.allclose(one[f"method.{key}"], two[f"method.{key}"], atol=1e-6), key
    assert [line["prediction"] for lines in now.values() for line in lines] == [
        line["prediction"] for lines in answers.values() for line in lines]


def test_no_epoch_tests_what_another_run_trained(train, run, tmp_path):
    """The same network by several samples; its weights are those of the run it is taken from."""
    assert train("start", "method=plain")[0] == 0
    method = ["method=conditional_avr", *SMALL]
    first = [*method, f"train.init={tmp_path / 'runs/start/best.pt'}", "train.frozen=true"]
    assert train("one", *first)[0] == 0
    again = [*method, f"train.init={tmp_path / 'runs/one/best.pt'}", "train.init_method=true", "train.frozen=true",
             "train.epochs=0", "method.steps=3", "method.samples=2"]
    code, out, err = train("sampled", *again)
    assert code == 0, err
    one, sampled = run("one"), run("sampled")
    assert all(torch.equal(one[0][key], sampled[0][key]) for key in one[0])
    assert train("fresh", *first, "train.epochs=0")[0] == 0
    last = "method.network.leave.weight"
    assert not torch.equal(run("fresh")[0][last], one[0][last])        # the frozen run trains the method
    for key, unchanged in (("complete", True), ("audio_missing", False)):
        sure, now = ([line["confidence"] for line in lines[1][key]] for lines in (one, sampled))
        assert (now == pytest.approx(sure, abs=1e-5)) == unchanged, key
    code, out, _ = train("sampled", *again)
    assert code == 0 and "already trained (0 epochs)" in out


def test_a_frozen_random_backbone_is_refused(train):
    code, _, err = train("frozen", "method=retrieval", "train.frozen=true")
    assert code == 2 and "train.frozen=true" in err and "train.init=" in err


def test_a_trained_model_is_tested_in_more_scenarios(train, run, tmp_path, in_process):
    """Also of a method without weights of its own; main_test.py gives the same answers."""
    assert train("dropout", "method=modality_dropout")[0] == 0
    code, _, err = train("more", "method=modality_dropout", f"train.init={tmp_path / 'runs/dropout/best.pt'}",
                         "train.init_method=true", "train.epochs=0", "evaluate.scenarios=[complete,audio_half]")
    assert code == 0, err
    assert run("more")[1]["complete"] == run("dropout")[1]["complete"]
    folder = tmp_path / "runs" / "dropout"
    assert in_process("main_test.py", "--checkpoint", folder, "--missing", "audio_half")[0] == 0
    half = run("more")[1]["audio_half"]
    assert half == run("dropout")[1]["audio_half"] != run("dropout")[1]["audio_missing"]
    code, _, err = in_process("main_test.py", "--checkpoint", folder, "--missing", "audio_half", "--segments", "0.5")
    assert code == 2 and "--segments" in err and "audio_half" in err and "Traceback" not in err


def test_a_run_on_a_share_of_the_questions_takes_fewer_steps(train, tmp_path):
    """24 questions in batches of 8, then 12; the vocabulary stays, so one starts from the other."""
    assert train("all", "method=plain")[0] == 0
    code, _, err = train("half", "method=plain", "dataset.train_questions=0.5",
                         f"train.init={tmp_path / 'runs/all/best.pt'}")
    assert code == 0, err
    steps = [json.loads((tmp_path / "runs" / name / "metrics.jsonl").read_text())["step"] for name in ("all", "half")]
    assert steps == [3, 2]
