"""Noise that evaluation can repeat, and memory that is kept."""

import platform
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from models.layers import noise
from models.layers.noise import gaussian_like

CHURN = """
import resource, torch
from engine.runtime import keep_freed_memory
{keep}
faults = lambda: resource.getrusage(resource.RUSAGE_SELF).ru_minflt
torch.zeros(16 * 2 ** 20)
before = faults()
for _ in range(5):
    torch.zeros(16 * 2 ** 20)                      # 64 MB
print(faults() - before)
"""


def test_a_large_draw_is_the_draw_of_every_question(monkeypatch):
    """Threads, the order of the questions and their number change nothing."""
    values, ids = torch.empty(5, 3, 7), torch.tensor([4, 0, 11, 4, 2])
    slowly = gaussian_like(values, ids, stream=6)
    monkeypatch.setattr(noise, "LARGE", 1)
    assert torch.equal(gaussian_like(values, ids, stream=6), slowly)
    assert torch.equal(gaussian_like(values[:2], ids[[2, 1]], stream=6), slowly[[2, 1]])
    by_hand = torch.empty(3, 7).normal_(generator=torch.Generator().manual_seed(11 * 1009 + 6))
    assert torch.equal(slowly[2], by_hand) and torch.equal(slowly[0], slowly[3])


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="mallopt is glibc's")
def test_large_tensors_take_kept_memory():
    """64 MB are 16,384 pages; all but the first tensor of five get along without new ones."""
    def page_faults(keep: str) -> int:
        command, root = [sys.executable, "-c", CHURN.format(keep=keep)], Path(__file__).parents[2]
        return int(subprocess.run(command, cwd=root, capture_output=True, text=True, check=True).stdout)
    assert page_faults("keep_freed_memory()") < 20_000 and page_faults("") > 60_000
