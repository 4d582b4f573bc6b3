"""A model's answers in every scenario, as records; the one path for validation, test and both entry points."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from accelerate import Accelerator
from accelerate.utils import gather_object
from tqdm import tqdm

from dataset import SCENARIOS, Scenario, Vocabulary, make_loader, question_only_floor
from dataset.files import write_json, write_jsonl
from engine.errors import UsageError
from engine.metrics import Record, by_source, summarise

RELEASED_NOISE = "released_noise"
# Standard deviation of the noise on (audio, visual) in the official evaluation code, by what it calls missing.
NOISE_SCALE = {"audio": (0.3, 0.0), "visual": (0.0, 0.7), "both": (0.5, 0.5)}
SAME_ANSWERS = ("dataset.features=", "runtime.", "evaluate.")     # overrides of how the data are read and how fast
NOTHING_MISSING = ("protocol released_noise: the modality is NOT missing. Its real features, with noise added, reach the "
                   "answer, as in the official evaluation code. Not comparable with a missing modality.")


@torch.no_grad()
def predict(model, data, split: str, scenario: Scenario, vocabulary: Vocabulary, accelerator: Accelerator,
            batch_size: int, workers: int, protocol: str = "missing") -> list[Record]:
    """One record per question of `split`, gathered over all processes.

    `protocol` "released_noise" reads the real features of what the scenario takes away (`NOTHING_MISSING`); complete
    input is answered as ever.
    """
    noised = protocol == RELEASED_NOISE and scenario.missing != "none"
    questions = data.question_set(split, vocabulary, SCENARIOS["complete"] if noised else scenario)
    loader = make_loader(questions, batch_size=batch_size, shuffle=False, workers=workers,
                         rank=accelerator.process_index, world_size=accelerator.num_processes)
    by_row = {q.row: q for q in data.questions(split)}
    net = accelerator.unwrap_model(model)
    net.eval()
    records = []
    bar = tqdm(loader, desc=f"{split} {scenario.name}", leave=False, disable=None if accelerator.is_main_process else True)
    for batch in bar:
        with accelerator.autocast():
            batch = batch.to(accelerator.device)
            if noised:
                lost = np.stack([scenario.presence(row, batch.presence.shape[1]) for row in batch.row.tolist()])
                state = batch.presence & torch.from_numpy(lost).to(batch.presence.device)
                logits = net.answer_on_noised_real(batch, state, NOISE_SCALE[scenario.missing])
            else:
                logits = net(batch).logits["complete"]                             # (B, A) or (B, M)
        confidence, choice = logits.float().softmax(dim=-1).max(dim=-1)            # (B,)
        for row, index, sure in zip(batch.row.tolist(), choice.tolist(), confidence.tolist(), strict=True):
            q = by_row[row]
            prediction = (q.texts or vocabulary.answers)[index]
            records.append(Record(row, q.question_id, q.video_id, q.type, scenario.name, prediction, q.answer, sure))
    gathered = gather_object(records)
    return sorted(gathered, key=lambda r: r.row)


def evaluate(model, data, split: str, scenarios: list[Scenario], vocabulary: Vocabulary, accelerator: Accelerator,
             batch_size: int, workers: int, protocol: str = "missing") -> tuple[dict[str, Any], list[Record]]:
    """Results by scenario as in results.json, and all records."""
    if protocol == RELEASED_NOISE and not hasattr(accelerator.unwrap_model(model).method, "refine_noised_real"):
        raise UsageError("--protocol released_noise exists for checkpoints of method=rmm_avr and method=released only")
    questions = data.questions(split)
    floor = dict(zip([q.row for q in questions], question_only_floor(data.questions("train"), questions), strict=True))
    results, records = {}, []
    for scenario in scenarios:
        found = predict(model, data, split, scenario, vocabulary, accelerator, batch_size, workers, protocol)
        oracle = data.oracle(split, scenario) if split == "test" else None
        results[scenario.name] = {**summarise(found, floor, oracle), "by_source": by_source(found, data.source)}
        if protocol == RELEASED_NOISE and scenario.missing != "none":
            results[scenario.name] |= {"protocol": protocol, "warning": NOTHING_MISSING}
        records += found
    return results, records


def variant(checkpoint: Path, split: str, changed: list[str]) -> str:
    """What sets an evaluation apart from the run's own, for its file names: "" for best.pt on the test split as trained.

    `changed`: overrides that say something else than the checkpoint. So results.json, which tables are made from, is never
    replaced by answers of another checkpoint, to other questions or of a model with other options.
    """
    parts = [part for part, own in ((checkpoint.stem, "best"), (split, "test")) if part != own]
    parts += sorted(item for item in changed if not item.startswith(SAME_ANSWERS))
    return "".join("-" + re.sub(r"[^\w.=-]+", "_", part) for part in parts)


def report(folder: Path, header: dict[str, Any], results: dict[str, Any], records: list[Record],
           log: Callable[[str], None], suffix: str = "") -> None:
    """Write results.json and predictions.jsonl, `suffix` (`variant`) before the ending.

    Scenarios evaluated earlier, after the same epoch, are kept.
    """
    results_path, predictions_path = folder / f"results{suffix}.json", folder / f"predictions{suffix}.jsonl"
    lines = [r.as_dict() for r in records]
    if results_path.is_file() and predictions_path.is_file():
        earlier = json.loads(results_path.read_text())
        if all(earlier.get(key) == header[key] for key in ("epoch", "seed", "split")):
            old = [json.loads(line) for line in predictions_path.read_text().splitlines()]
            lines = [r for r in old if r["scenario"] not in results] + lines
            results = {**earlier["scenarios"], **results}
    write_jsonl(predictions_path, lines)
    write_json(results_path, {**header, "scenarios": results})
    log(f"written: {results_path}, {predictions_path}")


def unknown_answers(records: list[Record], vocabulary: Vocabulary) -> str:
    """A note on questions whose answer is outside the vocabulary and so counted as wrong; empty if there are none.

    Where questions bring their own candidates there is no vocabulary of answers, and nothing to note.
    """
    if not vocabulary.answers:
        return ""
    rows = {r.row: r.answer for r in records}
    unknown = {row: answer for row, answer in rows.items() if answer not in set(vocabulary.answers)}
    if not unknown:
        return ""
    examples = ", ".join(repr(a) for a in sorted(set(unknown.values()))[:3])
    return (f"note: {len(unknown)} of {len(rows)} questions have an answer outside the vocabulary ({examples}); "
            "they are counted as wrong")
