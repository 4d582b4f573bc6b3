"""The official evaluation protocol, in which nothing is missing: the modality is there, with noise added."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import torch
from torch import nn

from dataset import SCENARIOS, Scenario
from dataset.types import Batch
from engine.errors import UsageError
from engine.evaluation import Evaluator
from engine.metrics import Record
from models.avqa import AVQAModel, Output

RELEASED_NOISE = "released_noise"
# Standard deviation of the noise on (audio, visual) in the official evaluation code, by what it calls missing.
NOISE_SCALE = {"audio": (0.3, 0.0), "visual": (0.0, 0.7), "both": (0.5, 0.5)}
NOTHING_MISSING = ("protocol released_noise: the modality is NOT missing. Its real features, with noise added, reach the "
                   "answer, as in the official evaluation code. Not comparable with a missing modality.")


class NoisedReal(nn.Module):
    """`model`, answering on the real features, with noise, of what `batch.presence` calls absent."""

    def __init__(self, model: AVQAModel, scale: tuple[float, float]) -> None:
        super().__init__()
        if not hasattr(model.method, "refine_noised_real"):
            raise UsageError("--protocol released_noise exists for checkpoints of method=rmm_avr and method=released only")
        self.model, self.scale = model, scale

    def forward(self, batch: Batch) -> Output:
        whole = replace(batch, presence=torch.ones_like(batch.presence))
        return Output({"complete": self.model.answer_on_noised_real(whole, batch.presence, self.scale)})


class Unhidden:
    """Questions whose batches say what `scenario` takes away, and hold its features nevertheless."""

    def __init__(self, data: Any, split: str, vocabulary: Any, scenario: Scenario) -> None:
        self.questions, self.scenario = data.question_set(split, vocabulary, SCENARIOS["complete"]), scenario

    def __len__(self) -> int:
        return len(self.questions)

    def batch(self, positions: list[int]) -> Batch:
        batch = self.questions.batch(positions)
        left = np.stack([self.scenario.presence(row, batch.presence.shape[1]) for row in batch.row.tolist()])
        return replace(batch, presence=batch.presence & torch.from_numpy(left))


class UnhiddenData:
    """A data set whose question sets are `Unhidden`; all else is that of `data`."""

    def __init__(self, data: Any) -> None:
        self.data = data

    def __getattr__(self, name: str) -> Any:
        return getattr(self.data, name)

    def question_set(self, split: str, vocabulary: Any, scenario: Scenario) -> Unhidden:
        return Unhidden(self.data, split, vocabulary, scenario)


def noised(plain: Evaluator, scenario: Scenario) -> Evaluator:
    """The evaluator of `scenario` by this protocol; complete input is answered as ever."""
    if scenario.missing == "none":
        return plain
    model = NoisedReal(plain.accelerator.unwrap_model(plain.model), NOISE_SCALE[scenario.missing])
    return Evaluator(model, UnhiddenData(plain.data), plain.vocabulary, plain.accelerator, plain.batch_size,
                     plain.workers)


def evaluate_noised(plain: Evaluator, split: str, scenarios: list[Scenario]) -> tuple[dict[str, Any], list[Record]]:
    """As `Evaluator.evaluate`; results are marked where the protocol made a difference."""
    results, records = {}, []
    for scenario, evaluator in [(scenario, noised(plain, scenario)) for scenario in scenarios]:
        of_one, answered = evaluator.evaluate(split, [scenario])
        if scenario.missing != "none":
            of_one[scenario.name] |= {"protocol": RELEASED_NOISE, "warning": NOTHING_MISSING}
        results, records = results | of_one, records + answered
    return results, records
