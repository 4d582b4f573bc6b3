"""A run folder holds one run: on its own data, of one process at a time, whole after a kill."""

import errno
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
from commands import ROOT
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from dataset import memory
from dataset.files import MACHINE
from dataset.lock import alone_in
from engine.errors import advice


@pytest.fixture
def folder(tmp_path):
    return tmp_path / "runs" / "r"


@pytest.fixture
def train(small, in_process, own_data, tmp_path):
    """Train `method=plain` on a copy of the data for one epoch."""
    shutil.copytree(own_data, tmp_path / "data")
    plain = [a for a in small if not a.startswith(("rmm.", "avr.", "train.epochs", "dataset.root"))]

    def call(*extra: str) -> tuple[int, str, str]:
        return in_process("main_train.py", *plain, "method=plain", f"dataset.root={tmp_path / 'data'}",
                          "train.epochs=1", *extra)
    return call


def change(path: Path, edit) -> None:
    records = json.loads(path.read_text())
    edit(records)
    path.write_text(json.dumps(records))


def spoil(path: Path, edit) -> None:
    state = torch.load(path, weights_only=True)
    edit(state)
    torch.save(state, path)


@pytest.mark.parametrize("split, edit, named", [
    ("train", list.reverse, ["the annotations of train", "vocabulary"]),
    ("train", lambda records: records[0].update(anser="no"), ["the annotations of train"]),
    ("val", lambda records: records.pop(), ["the annotations of val"]),
])
def test_changed_annotations_are_refused_and_named(train, folder, tmp_path, split, edit, named):
    assert train()[0] == 0
    before = (folder / "results.json").read_bytes()
    change(tmp_path / f"data/json_update/avqa-{split}.json", edit)
    for more in ([], ["train.epochs=2"]):
        code, _, err = train(*more)
        assert code == 2 and "was trained on other data" in err and all(text in err for text in named), err
    assert (folder / "results.json").read_bytes() == before


def test_a_checkpoint_without_digests_is_compared_by_vocabulary(train, folder, tmp_path):
    """Runs from before the digests go on; on another vocabulary they do not."""
    assert train()[0] == 0
    spoil(folder / "last.pt", lambda state: state.pop("annotations"))
    assert train("train.epochs=2")[0] == 0
    spoil(folder / "last.pt", lambda state: state.pop("annotations"))
    change(tmp_path / "data/json_update/avqa-train.json", list.reverse)
    code, _, err = train("train.epochs=3")
    assert code == 2 and "words of its vocabulary" in err and "annotations" not in err


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_weights_that_are_not_finite_are_refused(train, folder, in_process, value):
    assert train()[0] == 0
    results = (folder / "results.json").read_bytes()
    for name in ("best.pt", "last.pt"):
        spoil(folder / name, lambda state: state["model"]["head.answer.weight"].view(-1)[3:4].fill_(value))
    code, _, err = in_process("main_test.py", "--checkpoint", folder)
    assert code == 2 and "'head.answer.weight' holds NaN or infinity" in err
    assert train("train.epochs=2")[0] == 2
    assert train("run.name=next", f"train.init={folder / 'best.pt'}")[0] == 2
    assert (folder / "results.json").read_bytes() == results


def test_answers_that_overflow_are_refused(train, folder, in_process):
    """Finite weights, too, can give logits that are not."""
    assert train()[0] == 0
    spoil(folder / "best.pt", lambda state: [t.fill_(3e38) for k, t in state["model"].items() if k.startswith("head.")])
    code, _, err = in_process("main_test.py", "--checkpoint", folder)
    assert code == 2 and "answers with NaN" in err


def test_a_second_training_in_a_folder_is_refused(train, folder):
    with alone_in(folder, "training in"):
        code, _, err = train()
    assert code == 2 and f"another process is training in {folder}" in err and not (folder / "last.pt").exists()
    assert train()[0] == 0


def test_the_next_start_tidies_up_and_completes_the_log(train, folder):
    """What dead processes left goes; the log line that a kill cost comes back."""
    assert train("train.epochs=2")[0] == 0
    log = folder / "metrics.jsonl"
    whole = log.read_text()
    log.write_text(whole.splitlines(keepends=True)[0])
    left = folder / f".last.pt.{MACHINE}.999999999.tmp"
    left.touch()
    assert train("train.epochs=2")[0] == 0
    assert log.read_text() == whole and not left.exists()


def wrong_weight(state):
    state["model"]["head.answer.bias"] = "text"


@pytest.mark.parametrize("damage", [
    lambda state: state.update(model=[]), lambda state: state.update(config="x"),
    lambda state: state.update(epoch=None), lambda state: state["config"].update(method=[1]),
    lambda state: state["config"].update(method=torch.zeros(2)), lambda state: state["vocabulary"].update(words=3),
    lambda state: state["vocabulary"]["words"].pop(), lambda state: state["spec"].update(segments="many"),
    lambda state: state["spec"].update(segments=-1), lambda state: state.update(format=99), wrong_weight,
])
def test_a_checkpoint_with_wrong_content_is_one_line(train, folder, in_process, damage):
    assert train()[0] == 0
    spoil(folder / "best.pt", damage)
    code, _, err = in_process("main_test.py", "--checkpoint", folder)
    assert code == 2 and err.count("error: ") == 1 and "best.pt" in err and "Traceback" not in err, err


@pytest.mark.parametrize("key", ["optimiser", "schedule", "history", "random", "best_score"])
def test_a_run_with_damaged_state_is_not_continued(train, folder, key):
    assert train()[0] == 0
    spoil(folder / "last.pt", lambda state: state.pop(key))
    code, _, err = train("train.epochs=2")
    assert code == 2 and "cannot be continued" in err and "last.pt" in err


def first_sums(state):
    return next(iter(state["optimiser"]["state"].values()))


@pytest.mark.parametrize("damage", [
    lambda state: first_sums(state).pop("exp_avg"),
    lambda state: first_sums(state).update(exp_avg=torch.zeros(1)),
    lambda state: first_sums(state).update(step=torch.zeros(4)),
    lambda state: first_sums(state).update(exp_avg_sq=3),
    lambda state: state["optimiser"]["param_groups"][0].update(lr=None),
    lambda state: state["optimiser"]["param_groups"][0].update(betas=(0.9, "x")),
    lambda state: state["schedule"]["epoch"].update(last_epoch=[1]),
    lambda state: state["config"]["train"].update(batch_size=torch.zeros(0)),
    lambda state: state["spec"].update(segments=torch.zeros(2)),
])
def test_state_of_a_wrong_type_is_one_line(train, folder, damage):
    assert train()[0] == 0
    spoil(folder / "last.pt", damage)
    code, _, err = train("train.epochs=2")
    assert code == 2 and err.count("error: ") == 1 and "last.pt" in err and "Traceback" not in err, err


@pytest.mark.parametrize("name", ["results.json", "predictions.jsonl"])
@pytest.mark.parametrize("text", ["", "{", "[1]", '{"epoch": 1}', "\n[]\n", '{"scenario": NaN}'])
def test_damaged_results_are_written_anew(train, folder, in_process, name, text):
    assert train()[0] == 0
    (folder / name).write_text(text)
    code, _, err = in_process("main_test.py", "--checkpoint", folder, "--missing", "audio")
    assert code == 0, err
    assert "audio_missing" in json.loads((folder / "results.json").read_text())["scenarios"]
    assert all(json.loads(line)["scenario"] for line in (folder / "predictions.jsonl").read_text().splitlines())


def test_a_pipe_is_not_waited_for(train, folder, in_process, tmp_path):
    assert train()[0] == 0
    for name in ("best.pt", "results.json"):
        (folder / name).unlink()
        os.mkfifo(folder / name)
    code, _, err = in_process("main_test.py", "--checkpoint", folder)
    assert code == 2 and "best.pt is a pipe" in err
    os.mkfifo(tmp_path / "a.yaml")
    assert "a.yaml is a pipe" in train(str(tmp_path / "a.yaml"))[2]


def test_numbers_that_json_has_not_are_written_anew(train, folder, in_process):
    assert train()[0] == 0
    path = folder / "predictions.jsonl"
    path.write_text(re.sub(r'"confidence": [\d.e-]+', '"confidence": NaN', path.read_text()))
    code, out, err = in_process("main_test.py", "--checkpoint", folder, "--missing", "audio")
    assert code == 0 and "damaged and are replaced" in out and "NaN" not in path.read_text(), err


def test_a_batch_beyond_memory_is_refused(train, monkeypatch):
    monkeypatch.setattr(memory, "free_memory", lambda: 1000.0)
    code, _, err = train("train.batch_size=64")
    assert code == 2 and "set a smaller train.batch_size" in err


def test_advice_fits_the_error(tmp_path):
    (tmp_path / "file").touch()
    assert "Free some space" in advice(OSError(errno.ENOSPC, "", "x"))
    assert "can be written" in advice(OSError(errno.EROFS, "", "x"))
    assert advice(OSError(errno.ENOENT, "", "x")) == advice(OSError(errno.ENAMETOOLONG, "", "x")) == ""


def test_a_checkpoint_that_cannot_be_written_names_its_file(train, folder, monkeypatch):
    """Only a full disk brings the advice to free space."""
    def fail(error):
        def write(state, path):
            raise error
        return write

    for error, hint in ((RuntimeError("zip writer"), False), (OSError(errno.EIO, "Input/output error"), False),
                        (OSError(errno.ENOSPC, "No space left on device"), True)):
        monkeypatch.setattr(torch, "save", fail(error))
        code, _, err = train()
        assert code == 2 and str(folder / "best.pt") in err and ("ree some space" in err) is hint, err


def test_sigterm_ends_like_ctrl_c(small, folder):
    arguments = [sys.executable, str(ROOT / "main_train.py"), *small, "train.epochs=500"]
    process = subprocess.Popen(arguments, cwd=ROOT, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)
    deadline = time.time() + 120
    while time.time() < deadline and not (folder / "metrics.jsonl").is_file():
        time.sleep(0.1)
    process.send_signal(signal.SIGTERM)
    _, err = process.communicate(timeout=60)
    assert process.returncode == 143 and "interrupted; the same command continues" in err and "Traceback" not in err


def test_the_log_of_a_run_has_a_line_every_minute(train, monkeypatch):
    monkeypatch.setattr("engine.logger.MINUTE", 0.0)
    code, out, _ = train("train.max_steps=2")
    assert code == 0 and "epoch 1: 1 of 2," in out and "epoch 1: 2 of 2," in out and "loss=" in out
    assert "test complete: 2 of 2," in out


def test_tensorboard_has_rate_time_oracle_and_floor(in_process, tmp_path):
    sizes = [f"dataset.{split}_videos=4" for split in ("train", "val", "test")]
    code, _, err = in_process("main_train.py", "method=plain", f"dataset.root={tmp_path / 'data'}", *sizes,
                              "dataset.channels=8", f"run.root={tmp_path}", "run.name=r", "train.epochs=2",
                              "train.batch_size=4", "train.learning_rate=1e-4", "train.log_every=2",
                              "train.select_by=[complete]", "evaluate.scenarios=[complete]", "runtime.workers=0")
    assert code == 0, err
    events = EventAccumulator(str(tmp_path / "r"))
    events.Reload()
    assert {"learning_rate", "seconds_per_step", "val_floor", "test/complete", "test_oracle/complete",
            "test_floor/complete"} <= set(events.Tags()["scalars"])
    assert events.Scalars("learning_rate")[0].value == pytest.approx(1e-4)
    assert [point.value for point in events.Scalars("test_oracle/complete")] == [100.0]


def test_test_sh_reads_a_path_from_where_the_user_stands(train, folder):
    assert train()[0] == 0
    done = subprocess.run(["bash", str(ROOT / "test.sh"), folder.name, "--missing", "none"], cwd=folder.parent,
                          text=True, capture_output=True, timeout=300, env={**os.environ, "PYTHON": sys.executable})
    assert done.returncode == 0 and str(folder / "best.pt") in done.stdout, done.stderr
