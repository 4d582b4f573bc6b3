"""Training: epochs, validation, the best checkpoint, and a resume that continues bit for bit."""

from __future__ import annotations

import sys
import time
from dataclasses import asdict
from itertools import islice
from pathlib import Path
from typing import Any

import torch
from accelerate.utils import gather_object, set_seed
from tqdm import tqdm

from dataset import SCENARIOS, Vocabulary, make_loader
from dataset.extracted import WARNING
from dataset.files import write_json, write_jsonl, write_text
from dataset.loader import QuestionLoader
from dataset.types import DataSpec
from engine import runtime
from engine.checkpoint import load_checkpoint, load_weights, save_checkpoint
from engine.config import to_yaml
from engine.errors import UsageError
from engine.evaluation import Evaluator, write_results
from engine.logger import LossLog, Progress, environment
from engine.optimiser import Schedule, load_optimiser, make_optimiser
from engine.restore import check_same_data, check_same_run, digests, note_on_origin, start_from
from models import build_model
from models.objective import check_finite, total_loss


class Trainer:
    """One run: `fit` trains (or continues) and leaves checkpoints, `test` evaluates the best."""

    def __init__(self, config: dict[str, Any], folder: Path, data, vocabulary: Vocabulary, spec: DataSpec) -> None:
        self.config, self.folder, self.data, self.vocabulary, self.spec = config, folder, data, vocabulary, spec
        self.best, self.last = folder / "best.pt", folder / "last.pt"
        self.annotations = digests(data)
        for section, split in (("train", "train"), ("evaluate", "test")):
            runtime.refuse_huge_batch(section, config[section]["batch_size"], len(data.questions(split)), spec)
        self.accelerator = runtime.make_accelerator(config["runtime"])
        self.main = self.accelerator.is_main_process
        self.log(WARNING if data.dry_run else "")
        train = config["train"]
        set_seed(train["seed"])                  # alike on every process: all start from the same weights
        self.model = build_model(spec, config["backbone"], config["method"], train["label_smoothing"], train["frozen"])
        self.epoch = self.step = 0
        self.best_score = -1.0
        self.history: list[dict[str, Any]] = []
        self.curves = LossLog(None, train["log_every"])
        resumed = load_checkpoint(self.last) if self.last.is_file() else None
        if resumed is None and train["init"]:
            init = Path(train["init"])
            start = load_checkpoint(init)
            self.log(start_from(self.model, start, vocabulary.to_dict(), init, train["init_method"]))
            self.log(note_on_origin(start, self.annotations, init))
        elif resumed is None and train["epochs"] == 0:
            raise UsageError("train.epochs=0 tests what train.init gives, and there is none; give a checkpoint, "
                             "train.init=RUN_DIR/best.pt")
        elif resumed is None and train["frozen"]:
            raise UsageError("train.frozen=true leaves backbone and head as they are, and these are random; train "
                             "method=plain first and give its checkpoint, train.init=RUN_DIR/best.pt")
        elif resumed is None and self.model.method.needs_trained_backbone:
            self.log(f"warning: method={config['method']['name']} leaves the backbone's weights as they are, and these "
                     "are random; train method=plain first and give its checkpoint, train.init=RUN_DIR/best.pt")
        if config["runtime"]["compile"]:
            self.model.method.compile_hot_path()
        optimiser = make_optimiser(self.model.parameters(), train)
        trained = any(p.requires_grad for p in self.model.parameters())      # else processes have no gradient to share
        self.model = self.accelerator.prepare_model(self.model, evaluation_mode=not trained)
        self.optimiser = self.accelerator.prepare(optimiser)
        self.evaluator = Evaluator(self.model, data, vocabulary, self.accelerator, config["evaluate"]["batch_size"],
                                   config["runtime"]["workers"])
        self.schedule = Schedule(self.optimiser.optimizer, train, self.all_steps())
        if resumed is not None:
            self.resume(resumed)

    def log(self, text: str) -> None:
        if self.main and text:
            tqdm.write(text)

    def resume(self, state: dict[str, Any]) -> None:
        """Continue from the last finished epoch of a run of this configuration on these data."""
        check_same_run(state["config"], self.config, self.last)
        check_same_data(state, self.vocabulary, self.spec, self.annotations, self.last)
        load_weights(self.accelerator.unwrap_model(self.model), state["model"], self.last)
        try:
            load_optimiser(self.optimiser.optimizer, state["optimiser"])
            self.schedule.load_state_dict(state["schedule"])
            self.epoch, self.step = state["epoch"], int(state["step"])
            self.best_score, self.history = float(state["best_score"]), list(state["history"])
            runtime.restore_random_state(state["random"][min(self.accelerator.process_index, len(state["random"]) - 1)])
            if self.main:            # a run killed before its log was written has lost a line of it
                write_jsonl(self.folder / "metrics.jsonl", self.history)
        except (KeyError, IndexError, TypeError, ValueError, AttributeError, RuntimeError) as error:
            raise UsageError(f"{self.last} cannot be continued, its optimiser, schedule or log is damaged ({error}); "
                             "delete it to train again") from error
        self.log(f"continuing {self.folder} after epoch {self.epoch}")

    def fit(self) -> None:
        """Train until the last epoch or `max_steps`, validating and saving after every epoch."""
        if self.finished and self.last.is_file():
            self.log(f"{self.folder} is already trained ({self.epoch} epochs); delete it to train again")
            return
        if self.main:
            write_text(self.folder / "config.yaml", to_yaml(self.config))
            processes = self.accelerator.num_processes
            write_json(self.folder / "environment.json", environment(self.accelerator.device, processes))
        self.curves = LossLog(self.folder if self.main else None, self.config["train"]["log_every"])
        try:
            if self.config["train"]["epochs"] == 0:
                self.save(improved=True)
            while not self.finished:
                self.run_epoch()
        finally:
            self.curves.sync()

    @property
    def finished(self) -> bool:
        train = self.config["train"]
        if train["patience"] and self.without_gain >= train["patience"]:
            return True
        return self.epoch >= train["epochs"] or bool(train["max_steps"] and self.step >= train["max_steps"])

    @property
    def without_gain(self) -> int:
        """Validations since the best one."""
        scores = [entry["val"]["selection"] for entry in self.history if "val" in entry]
        return len(scores) - 1 - scores.index(max(scores)) if scores else 0

    def all_steps(self) -> int:
        """Optimiser steps of the whole run, as configured."""
        train = self.config["train"]
        return min(train["epochs"] * len(self.train_loader(0)), train["max_steps"] or sys.maxsize)

    def run_epoch(self) -> None:
        started = time.perf_counter()
        losses = self.train_epoch()
        self.schedule.after_epoch()
        self.epoch += 1
        entry = {"epoch": self.epoch, "step": self.step, "seconds": time.perf_counter() - started, "loss": losses}
        improved = False
        if self.finished or self.epoch % self.config["evaluate"]["every"] == 0:
            entry["val"] = self.validate()
            self.curves.scalars({f"val/{name}": value for name, value in entry["val"].items()}, self.step)
            improved = entry["val"]["selection"] > self.best_score
            self.best_score = max(self.best_score, entry["val"]["selection"])
        self.history.append(entry)
        self.save(improved)
        shown = ", ".join(f"{k} {v:.1f}" for k, v in entry.get("val", {}).items())
        self.log(f"epoch {self.epoch}: loss {losses['total']:.3f}, {entry['seconds']:.0f} s; val {shown or 'not due'}")

    def train_loader(self, epoch: int) -> QuestionLoader:
        """This process's batches of one pass over the training split."""
        train = self.config["train"]
        net = self.accelerator.unwrap_model(self.model)
        negatives = "other_video" if net.backbone.needs_negatives and not net.frozen else "none"
        questions = self.data.question_set("train", self.vocabulary, SCENARIOS["complete"], negatives=negatives,
                                           seed=train["seed"], epoch=epoch)
        return make_loader(questions, batch_size=train["batch_size"], shuffle=True, seed=train["seed"], epoch=epoch,
                           workers=self.config["runtime"]["workers"], rank=self.accelerator.process_index,
                           world_size=self.accelerator.num_processes)

    def train_epoch(self) -> dict[str, float]:
        """One pass over the training split; returns the epoch's mean of every named loss term."""
        train = self.config["train"]
        net = self.accelerator.unwrap_model(self.model)
        self.model.train()
        loader = self.train_loader(self.epoch)
        steps = min(len(loader), (train["max_steps"] or sys.maxsize) - self.step)
        bar = Progress(islice(loader, steps), f"epoch {self.epoch + 1}", steps, self.main)
        for batch in bar:
            rate = self.optimiser.param_groups[0]["lr"]
            terms = self.train_step(batch.to(self.accelerator.device), net.loss_weights)
            self.step += 1
            means = self.curves.add(terms, self.step, rate)
            if means:
                check_finite(means)
                bar.set_postfix(loss=f"{means['total']:.3f}")
        means = self.curves.end_epoch(self.step)
        check_finite(means)
        return means

    def train_step(self, batch, weights: dict[str, float]) -> dict[str, torch.Tensor]:
        with self.accelerator.autocast():
            terms = self.model(batch).terms
        total = total_loss(terms, weights)
        self.optimiser.zero_grad(set_to_none=True)
        if total.requires_grad:      # else all is frozen, and a pass only gathers statistics
            self.accelerator.backward(total)
            if self.config["train"]["clip_norm"]:
                self.accelerator.clip_grad_norm_(self.model.parameters(), self.config["train"]["clip_norm"])
        self.optimiser.step()
        self.schedule.after_step()
        return {"total": total, **terms}

    def validate(self) -> dict[str, float]:
        """Accuracy per scenario on the validation split, and the mean that selects the best."""
        names = list(dict.fromkeys([*self.config["train"]["select_by"], *self.config["evaluate"]["scenarios"]]))
        state = runtime.random_state()
        results, _ = self.evaluator.evaluate("val", [SCENARIOS[name] for name in names])
        runtime.restore_random_state(state)      # how often one validates must not change what is trained
        accuracy = {name: results[name]["overall"] for name in names}
        self.curves.scalars({"val_floor": results[names[0]]["question_only_floor"]}, self.step)
        chosen = self.config["train"]["select_by"]
        return {**accuracy, "selection": sum(accuracy[name] for name in chosen) / len(chosen)}

    def save(self, improved: bool) -> None:
        """`last` after every epoch, `best` when validation improved, and the log."""
        random = gather_object([runtime.random_state()])     # one entry per process
        if self.main:
            state = {
                "config": self.config, "vocabulary": self.vocabulary.to_dict(), "spec": asdict(self.spec),
                "model": self.accelerator.unwrap_model(self.model).state_dict(),
                "optimiser": self.optimiser.state_dict(), "schedule": self.schedule.state_dict(),
                "epoch": self.epoch, "step": self.step, "best_score": self.best_score, "history": self.history,
                "random": random, "annotations": self.annotations, "dry_run": self.data.dry_run,
                "row_seconds": self.data.row_seconds,
            }
            if improved:     # before `last`: a run cut off between the two repeats the epoch
                save_checkpoint(self.best, state)
            save_checkpoint(self.last, state)
            write_jsonl(self.folder / "metrics.jsonl", self.history)
        self.accelerator.wait_for_everyone()

    def test(self) -> None:
        """Evaluate the best (or last) checkpoint on the test split; print and write the results."""
        which = self.config["evaluate"]["checkpoint"]
        path = self.best if which == "best" else self.last
        state = load_checkpoint(path)
        load_weights(self.accelerator.unwrap_model(self.model), state["model"], path)
        results, records = self.evaluator.evaluate("test", [SCENARIOS[n] for n in self.config["evaluate"]["scenarios"]])
        if self.main:
            header = self.evaluator.header(self.config, path, state["epoch"], "test")
            self.log(write_results(self.folder, header, results, records))
            chosen = f"best of {self.epoch} by validation" if which == "best" else "the last"
            self.log(self.evaluator.as_text(f"\ntest, epoch {state['epoch']} ({chosen})", "test", results, records))
            for part, key in (("test", "overall"), ("test_oracle", "oracle"), ("test_floor", "question_only_floor")):
                self.curves.scalars({f"{part}/{name}": result[key] for name, result in results.items()
                                     if result[key] is not None}, self.step)
        self.curves.close()
