"""What L_ave could be: the error of the best linear denoiser, beside that of a run's own.

Eq. 7 asks for the noise in a noised pair. The Wiener filter of the covariance of the pairs (one
position of the sequence, training split) is the best linear answer; the untrained input skip is the
same with the covariance of white features. Both errors are averaged over the steps and taken on the
validation split.

  python scripts/linear_denoiser.py runs/synthetic-avst-rmm_avr-s1
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

import torch
from torch import Tensor
from tqdm import tqdm

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from dataset import SCENARIOS, make_loader
from engine.errors import UsageError, run_guarded
from engine.restore import Restored, checkpoint_in, restore


def wiener_error(covariance: Tensor, held_out: Tensor, kept: Tensor) -> float:
    """Mean squared error per channel of the best linear guess of the noise in sqrt(k) x + sqrt(1 -
    k) e, averaged over the shares `kept` (T,), which are alpha-bar_t.

    `covariance` (C, C) of the features gives the filter, `held_out` (n, C) the error.
    """
    spread, axes = torch.linalg.eigh(covariance)
    spread, power = spread.clamp_min(0), (held_out @ axes).square().mean(dim=0)    # (C,) each
    errors = []
    for k in kept:
        weight = (1 - k).sqrt() / (k * spread + 1 - k)
        errors.append(((1 - weight * (1 - k).sqrt()).square() + weight.square() * k * power).mean())
    return float(torch.stack(errors).mean())


@torch.no_grad()
def pairs(run: Restored, split: str) -> tuple[Tensor, float]:
    """Standardised pairs (n, C) by position, in float64, and the run's own L_ave on the split."""
    questions = run.data.question_set(split, run.vocabulary, SCENARIOS["complete"])
    loader = make_loader(questions, batch_size=64, shuffle=False, workers=run.config["runtime"]["workers"])
    net, seen, rows, losses = run.model.eval(), set(), [], []
    torch.manual_seed(0)
    for batch in tqdm(loader, desc=split, leave=False, disable=None):
        features = net.encode(batch.to(run.accelerator.device))
        losses.append(float(net.method.avr.loss(features)))
        new = [i for i, video in enumerate(batch.video.tolist()) if video not in seen and not seen.add(video)]
        if new:
            joined = net.method.avr.join(features.audio[new], features.visual[new])
            rows.append(joined.flatten(0, 1).double().cpu())
    return torch.cat(rows), sum(losses) / len(losses)


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("run", type=Path, help="run folder or checkpoint of a method with AVR")
    return parser.parse_args()


def main() -> None:
    run = restore(checkpoint_in(parse().run), [])
    avr = getattr(run.model.method, "avr", None)
    if avr is None or avr.diffusion.objective != "noise":
        raise UsageError(f"method={run.config['method']['name']} of this run has no AVR that predicts noise; give a "
                         "run of method=rmm_avr with avr.enabled=true and avr.objective=noise")
    train, _ = pairs(run, "train")
    held_out, own = pairs(run, "val")
    kept = avr.diffusion.alpha_bar.double().cpu()
    print(f"the run's L_ave on validation    {own:.3f}")
    print(f"input skip alone, untrained      {float(kept.mean()):.3f}")
    print(f"best linear denoiser             {wiener_error(train.T @ train / len(train), held_out, kept):.3f}")


if __name__ == "__main__":
    run_guarded(main)
