"""A model's answers in every scenario, as records: for validation, test and every script."""

from __future__ import annotations

import json
import re
import zlib
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from accelerate import Accelerator
from accelerate.utils import gather_object
from torch import Tensor, nn

from dataset import Scenario, Vocabulary, make_loader, question_only_floor
from dataset.extracted import WARNING
from dataset.files import write_json, write_jsonl
from dataset.types import Batch
from engine.errors import UsageError
from engine.logger import Progress
from engine.metrics import Record, by_part, by_source, notes, summarise, table

SAME_ANSWERS = ("dataset.features=", "runtime.", "evaluate.")     # overrides of how the data are read and how fast
LONGEST = 150                # characters of a `variant`: a file's name has at most 255


@torch.no_grad()
def probabilities(model: nn.Module, batch: Batch, accelerator: Accelerator) -> Tensor:
    """Of every answer, (B, A), or of every candidate, (B, M); UsageError where they are NaN."""
    net = accelerator.unwrap_model(model).eval()
    with accelerator.autocast():
        logits = net(batch.to(accelerator.device)).logits["complete"]
    shares = logits.float().softmax(dim=-1)
    if not bool(shares.isfinite().all()):
        raise UsageError("the model answers with NaN: the training diverged, or the features are huge; train again "
                         "with a smaller train.learning_rate, or give another checkpoint")
    return shares


@dataclass
class Evaluator:
    """Asks a model the questions of a data set.

    `model` takes a batch and returns an `Output`. Call it on every process: records are gathered.
    """

    model: nn.Module
    data: Any
    vocabulary: Vocabulary
    accelerator: Accelerator
    batch_size: int
    workers: int

    def predict(self, split: str, scenario: Scenario) -> list[Record]:
        """One record per question of `split`, in the order of the annotations."""
        process = self.accelerator
        questions = self.data.question_set(split, self.vocabulary, scenario)
        loader = make_loader(questions, batch_size=self.batch_size, shuffle=False, workers=self.workers,
                             rank=process.process_index, world_size=process.num_processes)
        by_row = {q.row: q for q in self.data.questions(split)}
        records = []
        for batch in Progress(loader, f"{split} {scenario.name}", len(loader), process.is_main_process):
            confidence, choice = probabilities(self.model, batch, process).max(dim=-1)            # (B,)
            for row, index, sure in zip(batch.row.tolist(), choice.tolist(), confidence.tolist(), strict=True):
                q = by_row[row]
                prediction = (q.texts or self.vocabulary.answers)[index]
                records.append(Record(row, q.question_id, q.video_id, q.type, scenario.name, prediction, q.answer,
                                      sure))
        return sorted(gather_object(records), key=lambda r: r.row)

    def evaluate(self, split: str, scenarios: list[Scenario]) -> tuple[dict[str, Any], list[Record]]:
        """Results by scenario as in results.json, and all records."""
        questions = self.data.questions(split)
        right = question_only_floor(self.data.questions("train"), questions)
        floor = dict(zip([q.row for q in questions], right, strict=True))
        parts = {q.row: q.part for q in questions if q.part}
        results, records = {}, []
        for scenario in scenarios:
            answered = self.predict(split, scenario)
            oracle = self.data.oracle(split, scenario) if split == "test" else None
            results[scenario.name] = {**summarise(answered, floor, oracle),
                                      "by_source": by_source(answered, self.data.source)}
            if parts:
                results[scenario.name]["by_part"] = by_part(answered, parts, floor)
            records += answered
        return results, records

    def header(self, config: dict[str, Any], checkpoint: Path, epoch: int, split: str) -> dict[str, Any]:
        """What results.json says of an evaluation beside its figures."""
        header = {"config": config, "checkpoint": str(checkpoint), "epoch": epoch, "seed": config["train"]["seed"],
                  "split": split}
        return header | ({"warning": WARNING} if self.data.dry_run else {})

    def as_text(self, title: str, split: str, results: dict[str, Any], records: list[Record]) -> str:
        """The table, and all that a reader must know of it."""
        reads_text = self.accelerator.unwrap_model(self.model).backbone.reads_text
        return "\n".join([title, table(results), *notes(results, records, self.vocabulary.answers),
                          *self.vocabulary.note(self.data.questions(split), reads_text),
                          *([WARNING] if self.data.dry_run else [])])


def variant(checkpoint: Path, split: str, changed: list[str]) -> str:
    """What sets an evaluation apart from the run's own, for its file names; "" for the run's own.

    That is best.pt on the test split with the options as trained; `changed`: overrides that say
    something else. So results.json, which tables are made from, is never replaced by answers of
    another checkpoint, to other questions or of a model with other options.
    """
    parts = [part for part, own in ((checkpoint.stem, "best"), (split, "test")) if part != own]
    parts += sorted(item for item in changed if not item.startswith(SAME_ANSWERS))
    name = "".join("-" + re.sub(r"[^\w.=-]+", "_", part) for part in parts)
    return name if len(name) <= LONGEST else f"{name[:LONGEST]}-{zlib.crc32(name.encode()):08x}"


def write_results(folder: Path, header: dict[str, Any], results: dict[str, Any], records: list[Record],
                  suffix: str = "") -> str:
    """Write results.json and predictions.jsonl with `variant` as suffix; returns a line on it.

    Scenarios evaluated earlier, after the same epoch, are kept.
    """
    results_path, predictions_path = folder / f"results{suffix}.json", folder / f"predictions{suffix}.jsonl"
    lines, line = [r.as_dict() for r in records], f"written: {results_path}, {predictions_path}"
    if results_path.is_file() and predictions_path.is_file():
        try:
            earlier = json.loads(results_path.read_bytes())
            if all(earlier.get(key) == header[key] for key in ("epoch", "seed", "split")):
                old = [json.loads(text) for text in predictions_path.read_bytes().splitlines()]
                kept = [r for r in old if r["scenario"] not in results]
                json.dumps([kept, earlier["scenarios"]], allow_nan=False)
                results, lines = {**earlier["scenarios"], **results}, kept + lines
        except (ValueError, KeyError, TypeError, AttributeError, RecursionError):
            line += " (those of before were damaged and are replaced)"
    write_jsonl(predictions_path, lines)
    write_json(results_path, {**header, "scenarios": results})
    return line
