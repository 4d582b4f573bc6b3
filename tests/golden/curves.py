"""The losses of the first training steps of every backbone and every method, on random features.

A change that is not meant to change what is learnt leaves them alone. After one that is meant to,
write curves.json again:

  python tests/golden/curves.py
"""

from __future__ import annotations

import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
STORED = Path(__file__).with_name("curves.json")
sys.path[:0] = [str(ROOT), str(ROOT / "tests")]

import torch
from toy import SPEC, random_batch

from dataset.files import write_json
from engine.config import compose
from models import BACKBONES, METHODS, build_model
from models.objective import total_loss

STEPS = 4
PAIRS = [("avst", method) for method in METHODS] + [(backbone, "plain") for backbone in BACKBONES if backbone != "avst"]
# A bounded reverse process: the printed one multiplies rounding by 160, and another processor would
# give another curve.
OPTIONS = {"rmm_avr": ["avr.steps=3", "avr.start=noised", "avr.start_step=1", "avr.clip=3.0", "avr.width=8"],
           "released": ["avr.steps=3", "avr.width=8"], "conditional_avr": ["method.width=16", "method.layers=1"]}


def curve(backbone: str, method: str) -> list[float]:
    """The total loss (Eq. 8, or that of the method) of the first `STEPS` steps of Adam."""
    config = compose(None, ["dataset=music_avqa", f"backbone={backbone}", f"method={method}", *OPTIONS.get(method, [])])
    torch.manual_seed(0)
    model = build_model(SPEC, config["backbone"], config["method"], config["train"]["label_smoothing"]).train()
    optimiser = torch.optim.Adam([p for p in model.parameters() if p.requires_grad], lr=1e-3)
    losses = []
    for step in range(STEPS):
        loss = total_loss(model(random_batch(6, seed=step)).terms, model.loss_weights)
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        losses.append(loss.item())
    return losses


def main() -> None:
    write_json(STORED, {f"{backbone} {method}": [round(value, 5) for value in curve(backbone, method)]
                        for backbone, method in PAIRS})


if __name__ == "__main__":
    main()
