"""Numbers of the official network on weights, inputs and noise made by rule, and the same numbers
of this project's.

official.json was written by running the official code (VisualAIKHU/Missing-AVQA, commit a198605) on
a CPU; CHECKOUT is a clone of it:

  python tests/golden/official.py CHECKOUT
  python tests/golden/official.py CHECKOUT --time 3      # writes nothing: seconds of training steps

Stands aside: its ResNet-18 and the eight layers without use, which take no part. Dropout is off.
Every value comes from `pseudo_random`, so that no weight needs to be stored; the names and shapes
of the official weights are in the file.
"""

from __future__ import annotations

import argparse
import json
import math
import resource
import sys
import time
import zlib
from contextlib import contextmanager
from pathlib import Path
from types import SimpleNamespace
from unittest import mock

ROOT = Path(__file__).resolve().parents[2]
STORED = Path(__file__).with_name("official.json")
sys.path[:0] = [str(ROOT), str(ROOT / "tests")]

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from toy import without_dropout

from dataset.types import Batch, DataSpec
from engine.errors import positive

SPEC = DataSpec(segments=10, audio_channels=128, visual_channels=512, grid=(14, 14), words=14, vocabulary=93,
                answers=42)
QUESTIONS, SLOTS, STEPS = 2, 5, 3
MISSING = {"audio": (0.3, 0.0), "visual": (0.0, 0.7)}          # the official evaluation's noise on (audio, visual)
TRAINED = {                                                   # entries whose gradients are compared, by official name
    "fc_a1.weight", "question_encoder.word2vec.weight", "fc_gl.weight", "fc4.weight", "attn_v.in_proj_weight",
    "fc_ans.weight", "memory_network.audio_memory", "memory_network.visual_memory",
    "memory_network.question_memory", "kr.weight", "kr2.weight",
    "unet.init_conv.weight", "unet.mid_attn.to_qkv.weight", "unet.final_conv.weight",
}


def pseudo_random(name: str, *shape: int) -> Tensor:
    """Values of mean 0 and variance 1 by name and position alone: the decimals of a large sine."""
    position = torch.arange(1, math.prod(shape) + 1, dtype=torch.float64)
    large = torch.sin(position * 12.9898 + zlib.crc32(name.encode()) % 9973) * 43758.5453
    return ((large - large.floor() - 0.5) * math.sqrt(12)).reshape(shape).float()


def weight(name: str, shape: list[int]) -> Tensor:
    """A matrix keeps the scale of what it reads, a bias is small, the gain of a norm is near 1."""
    values = pseudo_random(name, *shape)
    if name.startswith("memory_network.") or "word2vec" in name or "mem_kv" in name:
        return values
    if name.endswith(".g") or "norm" in name and name.endswith(".weight"):
        return 1 + 0.1 * values
    return values * (0.1 if len(shape) == 1 else math.prod(shape[1:]) ** -0.5)


def batch(B: int = QUESTIONS) -> Batch:
    """An even number of questions of the real shapes; the second is shorter than the others."""
    T, (H, W) = SPEC.segments, SPEC.grid
    words = torch.arange(1, B * SPEC.words + 1).reshape(B, SPEC.words) * 7 % 92 + 1
    words[1, 9:] = 0
    maps = {name: pseudo_random(name, B, T, 512, H, W).relu() for name in ("visual", "negative")}
    return Batch(audio=pseudo_random("audio", B, T, 128), visual=maps["visual"], words=words,
                 answer=torch.tensor([3, 40]).repeat(B // 2), presence=torch.ones(B, T, 2, dtype=torch.bool),
                 question_id=torch.arange(B), row=torch.arange(B), video=torch.arange(B),
                 negative_visual=maps["negative"])


def noise(name: str) -> Tensor:
    """(B*T, 512, 14, 14) of unit noise."""
    return pseudo_random(f"noise {name}", QUESTIONS * SPEC.segments, 512, *SPEC.grid)


def drawn_steps() -> Tensor:
    """(B*T,) the diffusion steps of L_ave."""
    return torch.arange(QUESTIONS * SPEC.segments) % STEPS


def head_of(values: Tensor) -> list[list[float]]:
    """The first ten logits of every question, and the norm of all."""
    return [[round(float(x), 5) for x in (*row[:10], row.norm())] for row in values.detach()]


# From here on: the official code, run beside it.

@contextmanager
def drawing(names: list[str], steps: Tensor | None = None):
    """`torch.randn_like` gives the noise of `names` in their order, `torch.randint` the steps."""
    left = list(names)

    def randn_like(values: Tensor, **_) -> Tensor:
        name = left.pop(0)
        return noise(name) if values.dim() == 4 else pseudo_random(f"noise {name}", *values.shape)

    with mock.patch("torch.randn_like", randn_like), mock.patch("torch.randint", lambda *_, **__: steps):
        yield
    assert not left, f"never drawn: {left}"


def official_network(checkout: Path, steps: int = STEPS, slots: int = SLOTS) -> nn.Module:
    """The official class with weights by rule."""
    sys.path[:0] = [str(checkout), str(checkout / "net_grd_avst")]
    sys.modules["visual_net"] = SimpleNamespace(resnet18=lambda pretrained: nn.Identity())
    import net_avst
    net = net_avst.AVQA_Fusion_Net(SimpleNamespace(time_step=steps, memory_size=slots, missing_situation="audio"))
    net.load_state_dict({name: weight(name, list(value.shape)) for name, value in net.named_parameters()}, strict=False)
    return without_dropout(net)


VIEWS = {"complete": ("out_qa", "out_match_{}"), "audio_missing": ("out_qa_ap", "visual_match_{}_ap"),
         "visual_missing": ("out_qa_vp", "visual_match_{}_vp")}


def official_losses(net: nn.Module, given: Batch) -> tuple[dict, dict[str, Tensor], Tensor]:
    """What the network puts out in training, its loss terms, and their total as official."""
    out, ave, rmmr, reconstruction = net.train()(given.audio, given.visual, given.negative_visual, given.words)
    terms = {"ave": ave, "rmmr": rmmr, "reconstruction": reconstruction}
    for view, (answer, match) in VIEWS.items():
        terms[f"answer_{view}"] = F.cross_entropy(out[answer], given.answer)
        pairs = [out[match.format(side)] for side in ("posi", "nega")]
        target = torch.tensor([1, 0]).repeat_interleave(len(pairs[0]))
        terms[f"match_{view}"] = F.cross_entropy(torch.cat(pairs), target)
    return out, terms, sum(value * (0.5 if name.startswith("match") else 1) for name, value in terms.items())


def official_training(net: nn.Module) -> dict:
    """Logits of three views, loss terms, gradients of a training pass."""
    reverse = [f"reverse {step}" for step in range(STEPS - 1, 0, -1)]
    with drawing(["training", *reverse, *reverse], drawn_steps()):
        out, terms, total = official_losses(net, batch())
    total.backward()
    gradients = {name: value.grad for name, value in net.named_parameters() if name in TRAINED}
    return {
        "logits": {view: head_of(out[answer]) for view, (answer, _) in VIEWS.items()},
        "terms": {name: round(float(value.detach()), 6) for name, value in terms.items()},
        "gradients": {name: float(f"{value.norm():.6g}") for name, value in gradients.items()},
        "entries": {name: list(value.shape) for name, value in net.named_parameters()
                    if value.grad is not None and not name.startswith("diffusion.")},
    }


@torch.no_grad()
def official_evaluation(net: nn.Module, missing: str) -> list[list[float]]:
    given = batch()
    net.eval().set_missing_situation(missing)
    reverse = [f"reverse {step}" for step in range(STEPS - 1, 0, -1)]
    with drawing([f"real {missing}", *reverse]):
        return head_of(net(given.audio, given.visual, given.negative_visual, given.words)[0])


def time_official(checkout: Path, count: int) -> None:
    """Print the seconds of `count` training steps at the paper's sizes (batch 4), and memory."""
    net, given = official_network(checkout, steps=10, slots=75), batch(4)
    optimiser = torch.optim.Adam(net.parameters(), lr=1e-4)
    for _ in range(count):
        started = time.perf_counter()
        total = official_losses(net, given)[2]
        optimiser.zero_grad(set_to_none=True)
        total.backward()
        optimiser.step()
        print(f"{time.perf_counter() - started:.1f} s", flush=True)
    memory = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2 ** 20
    print(f"{memory:.1f} GiB at most, {torch.get_num_threads()} threads")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("checkout", type=Path)
    parser.add_argument("--time", type=positive, metavar="STEPS")
    options = parser.parse_args()
    checkout = options.checkout.resolve()
    if options.time is not None:
        return time_official(checkout, options.time)
    net = official_network(checkout)
    numbers = official_training(net)
    numbers["evaluation"] = {missing: official_evaluation(net, missing) for missing in MISSING}
    lines = [f"{json.dumps(key)}: {json.dumps(value)}" for key, value in numbers.items()]
    STORED.write_text("{\n" + ",\n".join(lines) + "\n}\n")


if __name__ == "__main__":
    main()
