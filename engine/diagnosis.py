"""What a method writes in place of a missing modality, compared with what was there.

R2 is the share of the real features' variance over questions and segments that a stand-in explains: 1 for the real
feature, 0 for the best constant, below 0 for worse than that. "Real" is what the run itself answers on when all is there:
encoders are trained, so runs differ in it, and even zeros have not the same R2 in two of them. Spread is the standard
deviation of the stand-in over that of the real feature: near 0 means that the same thing is recalled whatever was asked
and shown.
"""

from __future__ import annotations

import math
from collections import defaultdict
from typing import Any

import torch
from torch import Tensor
from torchmetrics.functional.classification import binary_calibration_error
from tqdm import tqdm

from dataset import SCENARIOS, make_loader
from dataset.types import AUDIO, MODALITIES, VISUAL
from engine.evaluation import Evaluator
from engine.metrics import Record, percentage
from models.avqa import blank_batch
from models.features import Features, blank_features
from models.rmm_avr.method import RMMAVR

BINS = 15                                # of the calibration error, the usual number


class Fit:
    """Running sums that give R2 and spread of guesses against real vectors, both (n, C), without keeping them."""

    def __init__(self) -> None:
        self.n, self.error = 0, 0.0
        self.sums: list[Tensor] = []

    def add(self, real: Tensor, guess: Tensor) -> None:
        real, guess = real.double(), guess.double()
        new = [real.sum(0), real.square().sum(0), guess.sum(0), guess.square().sum(0)]              # (C,) each
        self.sums = [a + b for a, b in zip(self.sums, new, strict=True)] if self.sums else new
        self.error += float((real - guess).square().sum())
        self.n += len(real)

    def result(self) -> dict[str, float | int | None]:
        """R2 and spread; None where the real feature does not vary."""
        real, real_square, guess, guess_square = self.sums
        variation = float((real_square - real.square() / self.n).sum())
        guessed = max(float((guess_square - guess.square() / self.n).sum()), 0.0)
        if variation <= 1e-12 * float(real_square.sum()):      # the rounding of a constant
            return {"n": self.n, "r2": None, "spread": None}
        return {"n": self.n, "r2": 1 - self.error / variation, "spread": math.sqrt(guessed / variation)}


def vectors(features: Features, modality: int) -> Tensor:
    """One flat vector per question and segment: audio (B*T, D), visual (B*T, N*D)."""
    return (features.audio if modality == AUDIO else features.visual.flatten(2)).flatten(0, 1)


@torch.no_grad()
def examine_features(model, data, split: str, vocabulary, accelerator, batch_size: int, workers: int) -> dict[str, Any]:
    """By scenario: R2 and spread of every stage and modality, overall and by question type, and of the addressing.

    Only questions whose clip is whole are used, since the real features must be known.
    """
    questions = data.question_set(split, vocabulary, SCENARIOS["complete"])
    loader = make_loader(questions, batch_size=batch_size, shuffle=False, workers=workers)
    type_of = {q.row: q.type for q in data.questions(split)}
    net = accelerator.unwrap_model(model).eval()
    fits: dict[tuple, Fit] = defaultdict(Fit)
    addressing: dict[str, list[Tensor]] = defaultdict(list)
    for batch in tqdm(loader, desc=f"{split} stand-ins", leave=False, disable=None):
        batch = batch.to(accelerator.device)
        whole = batch.presence.flatten(1).all(dim=1)
        if not bool(whole.any()):
            continue
        batch = blank_batch(batch.map(lambda t, keep=whole: t[keep]))
        real = net.backbone.encode(batch)
        types = [type_of[row] for row in batch.row.tolist()]
        reference = net.method.complete(real, batch.presence)      # a method may answer on features of its own
        for name, modality in (("audio_missing", AUDIO), ("visual_missing", VISUAL)):
            state = batch.presence.clone()
            state[..., modality] = False
            left = blank_features(real, state)
            for stage, features in net.method.stages(left, state).items():
                if features.filled:                                # else nothing stands in: the absent is masked out
                    add_stage(fits, (name, stage), reference, features, types)
            if isinstance(net.method, RMMAVR) and net.method.rmm is not None:
                pseudo = net.method.rmm(left, state)
                addressing[name].append((pseudo.audio_addressing, pseudo.visual_addressing)[modality].flatten(0, 1))
    return collect(fits, {name: sharpness(torch.cat(parts)) for name, parts in addressing.items()})


def add_stage(fits: dict[tuple, Fit], place: tuple[str, str], real: Features, guess: Features, types: list[str]) -> None:
    for modality, name in enumerate(MODALITIES):
        truth, found = vectors(real, modality), vectors(guess, modality)
        fits[*place, name, "all"].add(truth, found)
        for type_ in sorted(set(types)):
            rows = torch.tensor([t == type_ for t in types], device=truth.device)
            rows = rows.repeat_interleave(len(truth) // len(types))                 # (B*T,)
            fits[*place, name, type_].add(truth[rows], found[rows])


def sharpness(weights: Tensor) -> dict[str, float]:
    """Of addressing vectors (n, K): entropy over log K (1 = uniform), slots in effect, the largest weight times K."""
    entropy = torch.special.entr(weights.double()).sum(dim=-1)                      # (n,)
    slots = weights.shape[-1]
    return {
        "entropy": float(entropy.mean() / math.log(slots)) if slots > 1 else 0.0,
        "effective_slots": float(entropy.exp().mean()),
        "largest_weight_times_slots": float(weights.amax(-1).mean() * slots),
    }


def collect(fits: dict[tuple, Fit], addressing: dict[str, dict[str, float]]) -> dict[str, Any]:
    """{scenario: {"stages": {stage: {modality: {type: result}}}, "addressing": ...}}."""
    found: dict[str, Any] = {}
    for (scenario, stage, modality, type_), fit in fits.items():
        cell = found.setdefault(scenario, {"stages": {}, "addressing": addressing.get(scenario)})
        cell["stages"].setdefault(stage, {}).setdefault(modality, {})[type_] = fit.result()
    return found


def calibration(records: list[Record]) -> float:
    """Expected calibration error in percent: |confidence - accuracy| averaged over bins of confidence, by share."""
    confidence = torch.tensor([r.confidence for r in records])
    correct = torch.tensor([int(r.correct) for r in records])
    return 100 * float(binary_calibration_error(confidence, correct, n_bins=BINS, norm="l1"))


def accuracy_by_steps(model, data, split: str, vocabulary, accelerator, batch_size: int, workers: int) -> dict[str, Any]:
    """{scenario: {number of reverse steps: accuracy}} of a model that has AVR, from 1 step to its own; else empty.

    Fewer steps start the reverse process at an earlier noise level; the trained network is the same throughout.
    """
    method = accelerator.unwrap_model(model).method
    if not isinstance(method, RMMAVR) or method.avr is None:
        return {}
    trained = method.avr.reverse_steps
    evaluator = Evaluator(model, data, vocabulary, accelerator, batch_size, workers)
    found: dict[str, Any] = {}
    try:
        for steps in range(1, trained + 1):
            method.avr.reverse_steps = steps
            for name in ("audio_missing", "visual_missing"):
                records = evaluator.predict(split, SCENARIOS[name])
                found.setdefault(name, {})[steps] = percentage(r.correct for r in records)
    finally:
        method.avr.reverse_steps = trained
    return found
