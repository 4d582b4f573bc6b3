"""The real commands, shrunk to seconds, on a data set of other shapes, T and words."""

import json
import re
import shutil
import signal
import subprocess
import sys
import time
from contextlib import chdir
from pathlib import Path

import numpy as np
import pytest
import torch
from commands import ROOT, command
from torch.distributed.run import main as torchrun

from models import BACKBONES, METHODS

PAIRS = [("avst", method) for method in METHODS] + [(b, "rmm_avr") for b in BACKBONES if b != "avst"]


def lines(path: Path) -> list[dict]:
    return [json.loads(line) for line in path.read_text().splitlines()]


@pytest.mark.parametrize("backbone,method", PAIRS)
def test_a_users_own_data_set_trains_and_evaluates(small, tmp_path, in_process, backbone, method):
    arguments = [a for a in small if method in ("rmm_avr", "released") or not a.startswith(("rmm.", "avr."))]
    code, out, err = in_process("main_train.py", *arguments, f"backbone={backbone}", f"method={method}")
    assert code == 0, err
    folder = tmp_path / "runs" / "r"
    results = json.loads((folder / "results.json").read_text())
    assert set(results["scenarios"]) == {"complete", "audio_missing", "visual_missing"}
    records = lines(folder / "predictions.jsonl")
    for name, scenario in results["scenarios"].items():
        mine = [r for r in records if r["scenario"] == name]
        assert len(mine) == scenario["n"] == 24
        assert scenario["overall"] == pytest.approx(100 * sum(r["prediction"] == r["answer"] for r in mine) / 24)
        assert sum(cell["n"] for cell in scenario["by_type"].values()) == 24
    entries = lines(folder / "metrics.jsonl")
    assert [e["epoch"] for e in entries] == [1, 2]
    own = {f"{name}_complete" for name in ({"avst": ["match"], "mcd": ["contrast", "distil"]}.get(backbone, []))}
    assert {"answer_complete", "total", *own} <= set(entries[0]["loss"])
    assert list(folder.glob("events.out.tfevents.*")) and (folder / "environment.json").is_file()
    assert "All Avg" in out and "visual_missing" in out


def test_prompts_leave_a_trained_backbone_alone(small, tmp_path, in_process):
    arguments = [a for a in small if not a.startswith(("rmm.", "avr.", "run.name"))]
    assert in_process("main_train.py", *arguments, "method=plain", "run.name=plain")[0] == 0
    trained = tmp_path / "runs" / "plain" / "best.pt"
    code, out, err = in_process("main_train.py", *arguments, "method=prompts", "run.name=p", f"train.init={trained}")
    assert code == 0 and "warning: method" not in out, err
    before, after = (torch.load(p, weights_only=True)["model"] for p in (trained, tmp_path / "runs" / "p" / "last.pt"))
    changed = {k for k in before.keys() & after.keys() if not torch.equal(before[k], after[k])}
    assert changed == {f"{layer}.{p}" for layer in ("backbone.fusion", "head.answer") for p in ("weight", "bias")}
    code, out, _ = in_process("main_train.py", *arguments, "method=prompts", "run.name=random", "train.epochs=1")
    assert code == 0 and "warning: method=prompts leaves" in out


def test_two_and_two_epochs_equal_four(small, tmp_path, in_process):
    whole, parts = [*small, "train.epochs=4", "run.name=whole"], [*small, "run.name=parts"]
    assert in_process("main_train.py", *whole)[0] == 0
    assert in_process("main_train.py", *parts, "train.epochs=2")[0] == 0
    code, out, _ = in_process("main_train.py", *parts, "train.epochs=4")
    assert code == 0 and "continuing" in out
    a, b = (torch.load(tmp_path / "runs" / n / "last.pt", weights_only=True) for n in ("whole", "parts"))
    assert a["epoch"] == b["epoch"] == 4
    for name, tensor in a["model"].items():
        assert torch.equal(tensor, b["model"][name]), name
    assert [e["loss"] for e in a["history"]] == [e["loss"] for e in b["history"]]
    whole, parts = (json.loads((tmp_path / "runs" / n / "results.json").read_text()) for n in ("whole", "parts"))
    assert whole["scenarios"] == parts["scenarios"]


def test_kill_9_loses_at_most_the_current_epoch(small, tmp_path):
    folder = tmp_path / "runs" / "r"
    arguments = [sys.executable, str(ROOT / "main_train.py"), *small, "train.epochs=500"]
    process = subprocess.Popen(arguments, cwd=ROOT, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    deadline, log = time.time() + 120, folder / "metrics.jsonl"
    while time.time() < deadline and not (log.is_file() and len(lines(log)) > 2):
        time.sleep(0.1)
    process.send_signal(signal.SIGKILL)
    process.wait()
    logged = len(lines(folder / "metrics.jsonl"))
    saved = torch.load(folder / "last.pt", weights_only=True)["epoch"]
    assert logged <= saved <= logged + 1
    done = command("main_train.py", *small, f"train.epochs={saved + 1}")
    assert done.returncode == 0 and f"after epoch {saved}" in done.stdout
    assert [e["epoch"] for e in lines(folder / "metrics.jsonl")] == list(range(1, saved + 2))


def test_evaluation_ignores_batch_size_and_repeats(small, tmp_path, in_process):
    assert in_process("main_train.py", *small)[0] == 0
    folder, scenarios = tmp_path / "runs" / "r", []
    for size in (1, 5, 24):
        code, out, err = in_process("main_test.py", "--checkpoint", folder, "--missing", "all",
                                    f"evaluate.batch_size={size}")
        assert code == 0, err
        scenarios.append(json.loads((folder / "results.json").read_text())["scenarios"])
    assert scenarios[0] == scenarios[1] == scenarios[2] and len(scenarios[0]) == 4


def test_ratio_zero_is_complete_and_ratio_one_is_missing(small, tmp_path, in_process):
    assert in_process("main_train.py", *small)[0] == 0
    folder = tmp_path / "runs" / "r"
    for ratio in ("0", "1"):
        assert in_process("main_test.py", "--checkpoint", folder, "--missing", "audio", "--ratio", ratio)[0] == 0
    scenarios = json.loads((folder / "results.json").read_text())["scenarios"]
    assert scenarios["audio_missing-ratio0"]["by_type"] == scenarios["complete"]["by_type"]


def test_other_evaluations_leave_the_results_of_the_run_alone(small, tmp_path, in_process):
    """A table reads best.pt, the test split and the trained options, whatever follows."""
    assert in_process("main_train.py", *small)[0] == 0
    folder = tmp_path / "runs" / "r"
    own = [folder / "results.json", folder / "predictions.jsonl"]
    before = [path.read_bytes() for path in own]
    others = {"-val": (folder, "--split", "val"), "-last": (folder / "last.pt",),
              "-val-method.refine=missing_only": (folder, "method.refine=missing_only", "--split", "val")}
    for name, arguments in others.items():
        code, out, err = in_process("main_test.py", "--checkpoint", *arguments)
        assert code == 0 and f"results{name}.json" in out, err
        written = json.loads((folder / f"results{name}.json").read_text())
        assert written["split"] == ("val" if "val" in name else "test")
    assert [path.read_bytes() for path in own] == before
    assert in_process("main_test.py", "--checkpoint", folder / ".." / "r", "--missing", "both")[0] == 0
    assert set(json.loads(own[0].read_text())["scenarios"]) > {"complete", "both_missing"}


def test_torchrun_gives_the_numbers_of_one_process(small, tmp_path):
    folder, scenarios = tmp_path / "runs" / "r", []
    evaluation = ["main_test.py", "--checkpoint", str(folder), "--missing", "all"]
    for arguments in (["main_train.py", *small], evaluation):
        with chdir(ROOT):
            torchrun(["--standalone", "--nproc-per-node", "2", *arguments])        # raises where a process fails
        scenarios.append(json.loads((folder / "results.json").read_text())["scenarios"])
    trained, together = scenarios
    assert command(*evaluation).returncode == 0
    alone = json.loads((folder / "results.json").read_text())["scenarios"]
    assert alone == together == {**together, **trained} and alone["complete"]["n"] == 24


def test_a_second_stage_starts_from_the_first(small, tmp_path, in_process):
    plain = [a for a in small if not a.startswith(("rmm.", "avr."))]
    assert in_process("main_train.py", *plain, "method=plain", "run.name=first")[0] == 0
    init = f"train.init={tmp_path / 'runs' / 'first' / 'best.pt'}"
    code, out, _ = in_process("main_train.py", *small, init, "train.max_steps=1")
    assert code == 0 and "of the method start fresh" in out


def test_the_released_evaluation_reads_what_it_calls_missing(small, tmp_path, in_process):
    """Silencing missing sound changes no answer but those of the released protocol."""
    assert in_process("main_train.py", *small)[0] == 0
    folder = tmp_path / "runs" / "r"
    silent = tmp_path / "silent"
    root = Path(next(a for a in small if a.startswith("dataset.root=")).partition("=")[2])
    shutil.copytree(root, silent)
    for path in (silent / "feats" / "vggish").glob("*.npy"):
        np.save(path, np.zeros_like(np.load(path)))
    confidences = {}
    for protocol in ("missing", "released_noise"):
        for data in (root, silent):
            code, out, err = in_process("main_test.py", "--checkpoint", folder, "--missing", "audio", "--protocol",
                                        protocol, f"dataset.root={data}")
            assert code == 0 and ("WARNING: protocol released_noise" in out) is (protocol == "released_noise"), err
            records = lines(Path(re.search(r"written: .*, (.*predictions.*\.jsonl)", out)[1]))
            name = "audio_missing" + ("" if protocol == "missing" else "-released_noise")
            confidences[protocol, data == silent] = [r["confidence"] for r in records if r["scenario"] == name]
    assert confidences["missing", False] == confidences["missing", True]
    assert confidences["released_noise", False] != confidences["released_noise", True]
    scenarios = json.loads((folder / "results.json").read_text())["scenarios"]
    assert scenarios["audio_missing-released_noise"]["protocol"] == "released_noise"
    assert "NOT missing" in scenarios["audio_missing-released_noise"]["warning"]
    assert "protocol" not in scenarios["audio_missing"]


def test_the_released_evaluation_needs_the_method(small, tmp_path, in_process):
    plain = [a for a in small if not a.startswith(("rmm.", "avr."))]
    assert in_process("main_train.py", *plain, "method=plain")[0] == 0
    code, _, err = in_process("main_test.py", "--checkpoint", tmp_path / "runs" / "r", "--protocol", "released_noise")
    assert code == 2 and "method=rmm_avr" in err
