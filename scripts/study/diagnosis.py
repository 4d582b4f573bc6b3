"""What a method writes in place of a missing modality, compared with what was there.

R2 is the share of the real features' variance over questions and segments that a stand-in explains:
1 for the real feature, 0 for the best constant, below 0 for worse than that. "Real" is what the run
itself answers on when all is there: encoders are trained, so runs differ in it, and even zeros have
not the same R2 in two of them. Spread is the standard deviation of the stand-in over that of the
real feature: near 0 means that the same thing is recalled whatever was asked and shown.
"""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor
from tqdm import tqdm

from dataset import SCENARIOS, make_loader
from dataset.types import AUDIO, MODALITIES, VISUAL, Batch
from engine.metrics import Record, calibration, percentage
from engine.released_noise import RELEASED_NOISE, NoisedEvaluator
from engine.restore import Restored
from models.avqa import AVQAModel
from models.features import Features, blank_features

MISSING = ("audio_missing", "visual_missing")         # in the order of AUDIO, VISUAL


class Fit:
    """Running sums for R2 and spread of guesses against real vectors, both (n, C)."""

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
def examine_features(run: Restored, split: str) -> dict[str, Any]:
    """R2 and spread by scenario, stage, modality and question type; and the addressing.

    Only questions whose clip is whole are used, since the real features must be known.
    """
    questions = run.data.question_set(split, run.vocabulary, SCENARIOS["complete"])
    loader = make_loader(questions, batch_size=run.config["evaluate"]["batch_size"], shuffle=False,
                         workers=run.config["runtime"]["workers"])
    type_of = {q.row: q.type for q in run.data.questions(split)}
    net = run.accelerator.unwrap_model(run.model).eval()
    fits: dict[tuple, Fit] = defaultdict(Fit)
    addressing: dict[str, list[Tensor]] = defaultdict(list)
    for batch in tqdm(loader, desc=f"{split} stand-ins", leave=False, disable=None):
        batch = batch.to(run.accelerator.device)
        whole = batch.presence.flatten(1).all(dim=1)
        if not bool(whole.any()):
            continue
        batch = batch.map(lambda t, keep=whole: t[keep])
        types = [type_of[row] for row in batch.row.tolist()]
        for modality, left, reference in lacking_sides(net, batch):
            name = MISSING[modality]
            for stage, features in net.method.stages(left).items():
                if features.filled:                                # else nothing stands in: the absent is masked out
                    add_stage(fits, (name, stage), reference, features, types)
            if weights := net.method.addressing(left):
                addressing[name].append(weights[modality].flatten(0, 1))
    return collect(fits, {name: sharpness(torch.cat(parts)) for name, parts in addressing.items()})


def lacking_sides(net: AVQAModel, batch: Batch) -> Iterator[tuple[int, Features, Features]]:
    """Each modality of a whole batch: what is left without it, and what is answered on with it."""
    real = net.encode(batch)
    reference = net.method.fill_in(real)                   # a method may answer on features of its own
    for modality in (AUDIO, VISUAL):
        state = batch.presence.clone()
        state[..., modality] = False
        yield modality, blank_features(real, state), reference


def add_stage(
    fits: dict[tuple, Fit], place: tuple[str, str], real: Features, guess: Features, types: list[str]
) -> None:
    for modality, name in enumerate(MODALITIES):
        truth, stand_in = vectors(real, modality), vectors(guess, modality)
        fits[*place, name, "all"].add(truth, stand_in)
        for type_ in sorted(set(types)):
            rows = torch.tensor([t == type_ for t in types], device=truth.device)
            rows = rows.repeat_interleave(len(truth) // len(types))                 # (B*T,)
            fits[*place, name, type_].add(truth[rows], stand_in[rows])


def sharpness(weights: Tensor) -> dict[str, float]:
    """Of addressing (n, K): entropy / log K (1: uniform), effective slots, largest weight * K."""
    entropy = torch.special.entr(weights.double()).sum(dim=-1)                      # (n,)
    slots = weights.shape[-1]
    return {
        "entropy": float(entropy.mean() / math.log(slots)) if slots > 1 else 0.0,
        "effective_slots": float(entropy.exp().mean()),
        "largest_weight_times_slots": float(weights.amax(-1).mean() * slots),
    }


def collect(fits: dict[tuple, Fit], addressing: dict[str, dict[str, float]]) -> dict[str, Any]:
    """{scenario: {"stages": {stage: {modality: {type: result}}}, "addressing": ...}}."""
    collected: dict[str, Any] = {}
    for (scenario, stage, modality, type_), fit in fits.items():
        cell = collected.setdefault(scenario, {"stages": {}, "addressing": addressing.get(scenario)})
        cell["stages"].setdefault(stage, {}).setdefault(modality, {})[type_] = fit.result()
    return collected


def answer(run: Restored, split: str, scenario: str, protocol: str = "missing") -> list[Record]:
    """The run's answers, one record per question."""
    evaluator = run.evaluator if protocol == "missing" else NoisedEvaluator(**vars(run.evaluator))
    return evaluator.predict(split, SCENARIOS[scenario])


def answers_by_scenario(run: Restored, split: str) -> dict[str, dict[str, float]]:
    """Accuracy and calibration of the answers, also by the official protocol where it applies."""
    inputs = {name: (name, "missing") for name in ("complete", *MISSING)}
    if run.model.method.refines_pairs:
        inputs |= {f"{name}, {RELEASED_NOISE}": (name, RELEASED_NOISE) for name in MISSING}
    records = {title: answer(run, split, *of) for title, of in inputs.items()}
    return {title: {"accuracy": percentage(r.correct for r in of_input),
                    "ece": calibration((r.confidence, r.correct) for r in of_input)}
            for title, of_input in records.items()}


def accuracy_by_steps(run: Restored, split: str) -> dict[str, Any]:
    """{scenario: {number of reverse steps: accuracy}} of a model that has AVR, from 1 step to its
    own; else empty.

    Fewer steps start the reverse process at an earlier noise level, with the same network.
    """
    avr, accuracy = getattr(run.model.method, "avr", None), {name: {} for name in MISSING}
    if avr is None:
        return {}
    trained = avr.reverse_steps
    try:
        for steps in range(1, trained + 1):
            avr.reverse_steps = steps
            for name in MISSING:
                accuracy[name][steps] = percentage(r.correct for r in answer(run, split, name))
    finally:
        avr.reverse_steps = trained
    return accuracy
