"""What the models of a row recall, and what they cost: R2, training, parameters, time of an answer.

R2 and time are measured from best.pt when a report is written, on the machine that writes it, and
kept beside it in cost.json until best.pt is newer.
"""

from __future__ import annotations

import json
from dataclasses import replace
from datetime import date
from pathlib import Path
from typing import Any

import torch
from pydantic import TypeAdapter
from typing_extensions import TypedDict

from dataset import SCENARIOS
from dataset.files import write_json
from dataset.types import AUDIO, MODALITIES, VISUAL, Batch
from engine.logger import environment
from engine.restore import restore
from models.avqa import AVQAModel
from scripts.study.diagnosis import Fit, lacking_sides, vectors
from scripts.tables.collect import BySeed, read
from scripts.tables.text import escaped, finite, grid_text, moments, rows_of, with_spread
from scripts.tables.timing import repeated

QUESTIONS, TIMED = 128, 16       # of the test split, evenly spread: for R2, and for the time of an answer
HEAD = {"r2_audio": "R2 of the sound", "r2_visual": "R2 of the picture", "seconds": "training (s)",
        "parameters": "trained parameters", "milliseconds": "an answer (ms)"}
DIGITS = {"r2_audio": 2, "r2_visual": 2, "seconds": 0, "milliseconds": 1}


class Measured(TypedDict):
    """cost.json. R2 is None where nothing stands in, or where the real feature does not vary."""

    r2_audio: float | None
    r2_visual: float | None
    parameters: int
    milliseconds: float
    place: str


def add_costs(report: dict[str, Any], planned: dict[str, BySeed]) -> None:
    """Put `costs` into every row of `report` (`collect`): moments over its runs by key of HEAD, of
    those that have best.pt; and when and where they were measured into `report` itself.
    """
    places = {}
    for key, row in report["rows"].items():
        folders = [run.folder for run in planned[key].values() if run.done]
        measured = [cost for folder in folders if (cost := cost_of(folder))]
        logs = [folder / "metrics.jsonl" for folder in folders if (folder / "metrics.jsonl").is_file()]
        columns = {name: [cost[name] for cost in measured] for name in HEAD if name != "seconds"}
        columns["seconds"] = [seconds for log in logs if (seconds := read(log, training_seconds))]
        row["costs"] = {name: moments(values) for name, values in columns.items() if values and None not in values}
        places |= dict.fromkeys(cost["place"] for cost in measured)
    report["measured"] = list(places)


def training_seconds(text: str) -> float:
    """metrics.jsonl: of all epochs, without the validations."""
    return float(sum(json.loads(line)["seconds"] for line in text.splitlines()))


def cost_of(folder: Path) -> Measured | None:
    """What is kept of a run's best.pt, measured now where nothing is; None without best.pt."""
    best, kept = folder / "best.pt", folder / "cost.json"
    if not best.is_file():
        return None
    if not kept.is_file() or kept.stat().st_mtime < best.stat().st_mtime:
        write_json(kept, finite(measure(best)))
    return read(kept, TypeAdapter(Measured).validate_json)


@torch.no_grad()
def measure(best: Path) -> Measured:
    """Of one model. The time is the mean of both missing cases."""
    run = restore(best, [])
    net = run.model.eval()
    questions = run.data.question_set("test", run.vocabulary, SCENARIOS["complete"])
    positions = list(range(0, len(questions), max(1, len(questions) // QUESTIONS)))[:QUESTIONS]
    batch = questions.batch(positions)
    few = batch.map(lambda t: t[:TIMED])
    trained = (net.method if run.config["train"]["frozen"] else net).parameters()
    here = environment(run.accelerator.device, 1)
    with run.accelerator.autocast():
        seconds = [answer_seconds(net, few, side, run.accelerator.device) for side in (AUDIO, VISUAL)]
    return Measured(**recalled(net, batch, run.accelerator.device), milliseconds=1000 * sum(seconds) / 2,
                    parameters=sum(p.numel() for p in trained if p.requires_grad),
                    place=f"{date.today().isoformat()} on {here['device']}, threads {here['threads']}")


def recalled(net: AVQAModel, batch: Batch, device: torch.device) -> dict[str, float | None]:
    """R2 of what stands in for either side of the questions whose clip is whole."""
    whole = batch.presence.flatten(1).all(dim=1)
    r2: dict[str, float | None] = {f"r2_{name}": None for name in MODALITIES}
    if not bool(whole.any()):
        return r2
    for side, left, reference in lacking_sides(net, batch.map(lambda t: t[whole]).to(device)):
        *_, stand_in = net.method.stages(left).values()
        fit = Fit()
        fit.add(vectors(reference, side), vectors(stand_in, side))
        r2[f"r2_{MODALITIES[side]}"] = fit.result()["r2"] if stand_in.filled else None
    return r2


def answer_seconds(net: AVQAModel, batch: Batch, side: int, device: torch.device) -> float:
    """Seconds per question of `batch` without that side."""
    presence = batch.presence.clone()
    presence[..., side] = False
    lacking = replace(batch, presence=presence).to(device)
    return repeated(lambda: net(lacking), device) / len(batch)


def cost_table(report: dict[str, Any], chosen: list[str] | None = None) -> str:
    """The columns of HEAD for `rows_of` the report."""
    lines = [[escaped(row["label"]), *(cell(row.get("costs", {}).get(name), name) for name in HEAD)]
             for row in rows_of(report, chosen).values()]
    return grid_text(lines, ["", *HEAD.values()])


def cost_section(report: dict[str, Any]) -> str:
    """The table, and what was measured where."""
    return f"""{cost_table(report)}

R2: share of the real feature's variance that the stand-in explains, over {QUESTIONS} test questions: 1 for the
feature itself, 0 for the best constant; of several samples, of their mean. Training: all epochs of the row's own
run, without validation and start. An answer: with one modality missing, the mean of both cases, {TIMED} questions at
a time, measured {"; ".join(report["measured"]) or "nowhere"}. Both times include other load on the machine. Mean ±
standard deviation over seeds; - where best.pt is gone, nothing stands in, or the model is another row's."""


def cell(values: dict[str, float | None] | None, name: str) -> str:
    if values and name == "parameters":
        return f"{values['mean']:,.0f}"
    return with_spread(values, DIGITS.get(name, 0))
