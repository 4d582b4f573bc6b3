"""The official evaluation protocol: nothing is missing, the modality is there with noise added."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import torch
from torch import nn

from dataset import Scenario
from dataset.types import Batch
from engine.evaluation import Evaluator
from engine.metrics import Record
from models.avqa import Output
from models.rmm_avr.released import NoisedReal

RELEASED_NOISE = "released_noise"
# Standard deviation of the official code's noise on (audio, visual), by what it calls missing.
NOISE_SCALE = {"audio": (0.3, 0.0), "visual": (0.0, 0.7), "both": (0.5, 0.5)}
NOTHING_MISSING = ("protocol released_noise: the modality is NOT missing. Its real features, with noise added, reach "
                   "the answer, as in the official evaluation code. Not comparable with a missing modality.")


class Marking(nn.Module):
    """`model` on real features, whose `presence` says what `scenario` would take away of them."""

    def __init__(self, model: nn.Module, scenario: Scenario) -> None:
        super().__init__()
        self.model, self.scenario = model, scenario

    def forward(self, batch: Batch) -> Output:
        left = np.stack([self.scenario.presence(row, batch.presence.shape[1]) for row in batch.row.tolist()])
        return self.model(replace(batch, presence=batch.presence & torch.from_numpy(left).to(batch.presence.device)))


class NoisedEvaluator(Evaluator):
    """Asks by this protocol and marks the results; complete input is answered as ever."""

    def predict(self, split: str, scenario: Scenario) -> list[Record]:
        if scenario.missing == "none":
            return super().predict(split, scenario)
        model = NoisedReal(self.accelerator.unwrap_model(self.model), NOISE_SCALE[scenario.missing])
        evaluator = Evaluator(**{**vars(self), "model": Marking(model, scenario)})
        return evaluator.predict(split, replace(scenario, missing="none"))

    def evaluate(self, split: str, scenarios: list[Scenario]) -> tuple[dict[str, Any], list[Record]]:
        results, records = super().evaluate(split, scenarios)
        for scenario in scenarios:
            if scenario.missing != "none":
                results[scenario.name] |= {"protocol": RELEASED_NOISE, "warning": NOTHING_MISSING}
        return results, records
