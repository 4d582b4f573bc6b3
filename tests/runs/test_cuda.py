"""The commands on a GPU, where there is one."""

import subprocess
import sys

import pytest
import torch
from commands import ROOT


@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
def test_torchrun_trains_on_a_gpu_and_resumes(small):
    """One process per GPU; the same command continues."""
    processes = min(torch.cuda.device_count(), 2)
    options = ["runtime.bf16=true" if option == "runtime.device=cpu" else option for option in small]

    def train(epochs: int):
        launch = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", str(processes)]
        done = subprocess.run([*launch, "main_train.py", *options, f"train.epochs={epochs}"], cwd=ROOT, timeout=300,
                              capture_output=True, text=True)
        assert done.returncode == 0, done.stderr
        return done.stdout

    assert "epoch 1:" in train(1)
    assert "after epoch 1" in train(2)
