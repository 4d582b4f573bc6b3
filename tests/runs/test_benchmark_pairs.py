"""The cost table of all pairs: its content, its continuation, and a pair that fails."""

import json
import subprocess

from commands import command


def pairs(out, *arguments: str):
    return command("scripts/benchmark_pairs.py", *arguments, "--backbones", "avst", "--batch-size", "1", "--out", out)


def test_only_a_failed_pair_is_measured_again(tmp_path, monkeypatch):
    """A failed pair is reported and measured the next time and a measured one is not."""
    with monkeypatch.context() as patch:           # one line of error needs no processes
        patch.setattr(subprocess, "run", lambda arguments, **_: command(*arguments[1:]))
        done = pairs(tmp_path, "--methods", "plain", "dataset.nonsense=1")
    assert done.returncode != 0 and "Traceback" not in done.stderr
    assert "dataset.nonsense" in (tmp_path / "table.md").read_text()
    done = pairs(tmp_path, "--methods", "plain")
    assert done.returncode == 0 and "failed:" not in done.stdout, done.stderr
    cell = json.loads((tmp_path / "table.json").read_text())["pairs"]["avst/plain"]
    assert cell["train-step"]["parameters"] == 7_916_716          # the published network's used parameters
    assert cell["train-step"]["flops_per_step"] > cell["inference"]["flops_per_step"] > 0
    cell["train-step"]["parameters"] = 1_500_000
    (tmp_path / "table.json").write_text(json.dumps({"pairs": {"avst/plain": cell}}))
    assert "| 1.5 " in pairs(tmp_path, "--methods", "plain").stdout
