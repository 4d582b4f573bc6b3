"""A user's mistakes: one clear line, exit code 2, no traceback, nothing written is lost."""

import json
import shutil

import numpy as np
import pytest
import torch
from commands import command, shell, write_dataset


@pytest.fixture
def data(tmp_path):
    return write_dataset(tmp_path / "data")


@pytest.fixture
def attempt(data, small, in_process):
    """Run a training on `data`; returns the one error line."""
    def run(*extra: str) -> str:
        arguments = [a for a in small if not a.startswith("dataset.root")]
        code, _, err = in_process("main_train.py", *arguments, f"dataset.root={data}", *extra)
        errors = [line for line in err.splitlines() if line.startswith("error: ")]
        assert code == 2 and len(errors) == 1 and "Traceback" not in err, err
        return errors[0]
    return run


def features(data, folder="res18_14x14", video="train0003"):
    return data / "feats" / folder / f"{video}.npy"


def test_missing_feature_file(data, attempt):
    features(data).unlink()
    assert "train0003.npy" in attempt()


def test_truncated_feature_file(data, attempt):
    path = features(data)
    path.write_bytes(path.read_bytes()[:200])
    assert "train0003.npy" in attempt()


def test_wrong_shape(data, attempt):
    np.save(features(data), np.zeros((6, 16, 3, 3), np.float32))
    assert "train0003.npy" in attempt()


def test_wrong_dtype(data, attempt):
    np.save(features(data, "vggish"), np.array([["a"] * 5] * 6))
    assert "train0003.npy" in attempt()


def test_nan_in_a_present_feature(data, attempt):
    array = np.load(features(data))
    array[0, 0, 0, 0] = np.nan
    np.save(features(data), array)
    assert "train0003.npy" in attempt()


def test_annotation_that_is_not_json(data, attempt):
    (data / "json_update" / "avqa-val.json").write_text("[{")
    assert "avqa-val.json" in attempt()


def test_annotation_that_lacks_a_field(data, attempt):
    path = data / "json_update" / "avqa-train.json"
    records = json.loads(path.read_text())
    del records[2]["anser"]
    path.write_text(json.dumps(records))
    message = attempt()
    assert "avqa-train.json" in message and "anser" in message


def test_no_data_set_at_the_root(attempt, tmp_path):
    assert "nowhere" in attempt(f"dataset.root={tmp_path / 'nowhere'}")


@pytest.mark.parametrize("override,expected", [
    ("rmm.slot=5", "'slots'"), ("train.epoch=5", "'epochs'"), ("trian.epochs=5", "'train'"),
    ("train.epochs=many", "train.epochs"), ("train.epochs=-1", "train.epochs"), ("rmm.addressing=papers", "paper"),
    ("method=rmm_avt", "'rmm_avr'"), ("backbone=avts", "'avst'"), ("dataset=music", "music_avqa"),
    ("dataset.train_questions=0", "dataset.train_questions"), ("dataset.train_missing_audio=2", "train_missing_audio"),
    ("evaluate.scenarios=[audio_hal]", "'audio_half'"), ("avr.schedule=linear", "linear"),
    ("method.name=nothing", "nothing"), ("epochs", "key=value"),
])
def test_configuration_mistakes_name_the_key_and_the_nearest(attempt, override, expected):
    assert expected in attempt(override)


def test_answer_outside_the_vocabulary_is_wrong_and_reported(data, small, in_process, tmp_path):
    path = data / "json_update" / "avqa-test.json"
    records = json.loads(path.read_text())
    records[0]["anser"] = "hurdy_gurdy"
    path.write_text(json.dumps(records))
    arguments = [a for a in small if not a.startswith("dataset.root")]
    code, out, err = in_process("main_train.py", *arguments, f"dataset.root={data}")
    assert code == 0, err
    assert "1 of 24" in out and "vocabulary" in out
    first = json.loads((tmp_path / "runs/r/predictions.jsonl").read_text().splitlines()[0])
    assert first["answer"] == "hurdy_gurdy" and first["correct"] is False


def test_checkpoint_that_is_cut_off_or_of_another_configuration(small, tmp_path, in_process):
    assert in_process("main_train.py", *small, "train.epochs=1")[0] == 0
    code, _, err = in_process("main_train.py", *small, "rmm.slots=6")
    assert code == 2 and "rmm" in err and "run.name" in err
    folder = tmp_path / "runs" / "r"
    best = folder / "best.pt"
    shutil.copy(best, tmp_path / "whole.pt")
    best.write_bytes(best.read_bytes()[:1000])
    code, _, err = in_process("main_test.py", "--checkpoint", best)
    assert code == 2 and "damaged" in err
    torch.save({"model": {}}, best)
    code, _, err = in_process("main_test.py", "--checkpoint", folder)
    assert code == 2 and "best.pt" in err
    code, _, err = in_process("main_test.py", "--checkpoint", tmp_path / "whole.pt", "rmm.slots=9")
    assert code == 2 and "another configuration" in err


@pytest.mark.parametrize("option", ["train.select_by=[]", "train.seed=5000000000", "evaluate.scenarios=[]"])
def test_values_that_no_run_can_end_well_with(attempt, option):
    assert option.partition("=")[0] in attempt(option)


def test_a_finished_run_keeps_what_says_how_it_was_trained(small, tmp_path, in_process):
    assert in_process("main_train.py", *small, "train.epochs=1")[0] == 0
    folder = tmp_path / "runs" / "r"
    before = {name: (folder / name).read_bytes() for name in ("config.yaml", "environment.json", "metrics.jsonl")}
    code, out, _ = in_process("main_train.py", *small, "train.epochs=1", "runtime.workers=1")
    assert code == 0 and "already trained" in out
    assert {name: (folder / name).read_bytes() for name in before} == before
    code, _, err = in_process("main_train.py", *small, "train.epochs=1", f"train.init={folder / 'last.pt'}")
    assert code == 2 and "train.init was None" in err


def test_unwritable_run_folder(small, tmp_path, in_process):
    (tmp_path / "runs").write_text("a file where a folder should be")
    code, _, err = in_process("main_train.py", *small)
    assert code == 2 and err.count("error: ") == 1


def test_a_full_disk_keeps_the_last_checkpoint(small, tmp_path, in_process, monkeypatch):
    assert in_process("main_train.py", *small, "train.epochs=1")[0] == 0
    before = (tmp_path / "runs/r/last.pt").read_bytes()

    def full(state, path):
        path.write_bytes(b"half")
        raise OSError(28, "No space left on device", str(path))

    monkeypatch.setattr(torch, "save", full)
    code, _, err = in_process("main_train.py", *small, "train.epochs=2")
    assert code == 2 and "No space left" in err
    assert (tmp_path / "runs/r/last.pt").read_bytes() == before
    assert not list((tmp_path / "runs/r").glob("*.tmp"))


@pytest.mark.skipif(torch.cuda.is_available(), reason="needs a machine without CUDA")
def test_cuda_asked_for_but_absent(attempt):
    assert "runtime.device=auto" in attempt("runtime.device=cuda")


def test_errors_as_the_shell_sees_them():
    done = shell("main_train.py", "rmm.slot=5")
    assert done.returncode == 2 and done.stderr.startswith("error: ") and "Traceback" not in done.stderr
    done = command("main_test.py", "--checkpoint", "no/such/run")
    assert done.returncode == 2 and "no/such/run" in done.stderr


def test_a_configuration_file_that_is_not_there_is_named(attempt):
    assert "no_such.yaml" in attempt("no_such.yaml")


def test_a_loss_that_is_not_finite_is_named(small, in_process):
    code, _, err = in_process("main_train.py", *small, "train.learning_rate=1e30", "train.log_every=1")
    assert code == 2 and "loss term '" in err
