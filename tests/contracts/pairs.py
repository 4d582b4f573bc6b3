"""Every registered backbone with every method at toy size, and the states of absence."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from toy import SPEC, random_batch

from dataset.types import AUDIO, VISUAL, Batch, DataSpec
from engine.config import compose
from models import BACKBONES, METHODS, build_model
from models.avqa import AVQAModel

# Options of a component that change enough of what is computed to make it another one, with every
# partner that differs.
VARIANTS = ("modality_alignment preset=agreement", "pstp_net variant=released")
PLUS = ("rmm_avr train.label_smoothing=0.1 method.views=segments rmm.addressing=product_of_experts rmm.scale=length "
        "avr.enabled=false")
PAIRS = [(b, m) for b in BACKBONES for m in METHODS if b == "avst" or m != "released"]     # a slow denoiser: once
PAIRS += [(b, m) for b in VARIANTS for m in ("plain", "prompts", "drfuse")]
PARAMS = [pytest.param(pair, id="-".join(pair)) for pair in PAIRS]
PARAMS += [pytest.param(("avst", PLUS), id="avst-rmm_avr plus")]
HALVED = "rmm_avr avr.multipliers=[1,2]"         # a U-Net that halves its sequences, as the default does
PARAMS += [pytest.param(("avst", HALVED), id="avst-rmm_avr halved")]
SAMPLED = "conditional_avr method.steps=2 method.samples=2 method.network=unet method.layers=2 method.width=8"
BRIDGED = "conditional_avr method.process=bridge method.objective=v method.steps=2"
PARAMS += [pytest.param(("avst", SAMPLED), id="avst-conditional_avr samples"),
           pytest.param(("avst", BRIDGED), id="avst-conditional_avr bridge")]
# No law depends on these.
SHRUNK = {"rmm_avr": ["avr.steps=2", "avr.width=8", "avr.multipliers=[1]"], "released": ["avr.steps=2", "avr.width=8"],
          "conditional_avr": ["method.width=16", "method.layers=1"], "retrieval": ["method.capacity=8"],
          "pano_avqa": [f"backbone.layers_{part}" for part in ("language=1", "visual=1", "audio=1", "cross=2")]}
# What methods hand over comes in kinds: filled, masked, with extra tokens, several samples.
KINDS = ("plain", "drfuse", "prompts", "conditional_avr method.steps")
EACH = [p for p in PARAMS if p.values[0][0] == "avst" or p.values[0][1].startswith(KINDS)]   # every backbone and method
CASES = ("complete", "audio_missing", "visual_missing", "both_missing", "segments", "mixed")


def build(pair: tuple[str, str], spec: DataSpec = SPEC) -> AVQAModel:
    """The model of one pair with seeded weights; options of a component follow its name."""
    (backbone, *of_backbone), (method, *of_method) = pair[0].split(), pair[1].split()
    config = compose(None, ["dataset=music_avqa", f"backbone={backbone}", f"method={method}", *SHRUNK.get(backbone, []),
                            *SHRUNK.get(method, []), *(f"backbone.{option}" for option in of_backbone), *of_method])
    torch.manual_seed(0)
    return build_model(spec, config["backbone"], config["method"], config["train"]["label_smoothing"])


def with_absence(case: str, size: int = 5) -> Batch:
    """A random batch that lacks what `case` says."""
    batch = random_batch(size)
    presence = batch.presence
    if case in ("audio_missing", "both_missing"):
        presence[..., AUDIO] = False
    if case in ("visual_missing", "both_missing"):
        presence[..., VISUAL] = False
    if case == "segments":
        presence[:, 1, AUDIO] = False
        presence[:, 2:, VISUAL] = False
    if case == "mixed":
        presence[0, :, AUDIO] = False
        presence[1, :, VISUAL] = False
        presence[2] = False
        presence[3, 1, AUDIO] = presence[3, 2:, VISUAL] = False
    return batch


def poison(batch: Batch, value: float) -> Batch:
    """`value` in every absent raw entry."""
    audio, visual = batch.audio.clone(), batch.visual.clone()
    audio[~batch.presence[..., AUDIO]] = value
    visual[~batch.presence[..., VISUAL]] = value
    return replace(batch, audio=audio, visual=visual)


@torch.no_grad()
def answer(model: AVQAModel, batch: Batch) -> torch.Tensor:
    """Logits (B, A) of an evaluation."""
    return model.eval()(batch).logits["complete"]
