"""Evaluate a checkpoint with a modality missing; configuration and vocabulary are its own."""

from __future__ import annotations

import argparse
from dataclasses import replace
from pathlib import Path

from dataset import SCENARIOS
from dataset.overlap import note_on_doubles
from engine.errors import UsageError, run_guarded
from engine.evaluation import variant, write_results
from engine.released_noise import NOTHING_MISSING, RELEASED_NOISE, NoisedEvaluator
from engine.restore import checkpoint_in, restore

MISSING = {"none": ["complete"], "audio": ["audio_missing"], "visual": ["visual_missing"], "both": ["both_missing"],
           "all": ["complete", "audio_missing", "visual_missing", "both_missing"],
           **{name: [name] for name, scenario in SCENARIOS.items() if scenario.run}}


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--checkpoint", type=Path, help="checkpoint or run folder; default: the latest run under runs/")
    parser.add_argument("--missing", choices=MISSING, help="default: complete, audio missing and visual missing; "
                        "audio_second, audio_half, audio_all_but_one and the like of visual lose segments in a row")
    parser.add_argument("--ratio", type=float, default=1.0,
                        help="share of questions that lose the modality (default 1)")
    parser.add_argument("--segments", type=float,
                        help="share of each such question's segments that is lost (default all)")
    parser.add_argument("--protocol", choices=("missing", RELEASED_NOISE), default="missing",
                        help="released_noise: what the official evaluation code does, in which the modality is not "
                        "missing but noisy; results are named and marked so")
    parser.add_argument("--split", choices=("val", "test"), default="test")
    parser.add_argument("overrides", nargs="*", metavar="key=value", help="such as dataset.root=DIR runtime.device=cpu")
    return parser.parse_intermixed_args()


def find_checkpoint(given: Path | None) -> Path:
    """A file as it is; of a folder its best checkpoint; of nothing the latest run's."""
    if given is None:
        checkpoints = sorted(Path("runs").glob("*/best.pt"), key=lambda p: p.stat().st_mtime)
        if not checkpoints:
            raise UsageError("no run with a best.pt under runs/; train one with bash train.sh or give --checkpoint P")
        return checkpoints[-1]
    return checkpoint_in(given)


def choose_scenarios(arguments: argparse.Namespace, default: list[str]):
    for option, value in (("--ratio", arguments.ratio), ("--segments", arguments.segments)):
        if value is not None and not 0 <= value <= 1:
            raise UsageError(f"{option} must be a share between 0 and 1, got {value}")
    names = MISSING[arguments.missing] if arguments.missing else default
    if arguments.segments is not None and any(SCENARIOS[name].run for name in names):
        raise UsageError(f"--segments loses segments anywhere, and {', '.join(names)} in a row; give --missing audio, "
                         "visual or both with it")
    suffix = "" if arguments.ratio == 1 else f"-ratio{arguments.ratio:g}"
    suffix += "" if arguments.segments is None else f"-segments{arguments.segments:g}"
    suffix += f"-{RELEASED_NOISE}" if arguments.protocol == RELEASED_NOISE else ""
    return [replace(SCENARIOS[n], name=n if n == "complete" else n + suffix, ratio=arguments.ratio,
                    segments=arguments.segments) for n in names]


def main() -> None:
    arguments = parse()
    path = find_checkpoint(arguments.checkpoint)
    run = restore(path, arguments.overrides)
    config, split = run.config, arguments.split
    scenarios = choose_scenarios(arguments, config["evaluate"]["scenarios"])
    evaluator = run.evaluator
    if arguments.protocol == RELEASED_NOISE:
        evaluator = NoisedEvaluator(**vars(evaluator))
    results, records = evaluator.evaluate(split, scenarios)
    if run.accelerator.is_main_process:
        if config["dataset"]["name"] != run.trained_on["name"]:
            print(note_on_doubles(run.data.questions(split), run.trained_on))
        print(evaluator.as_text(f"{split}, {path}, epoch {run.epoch}", split, results, records))
        if arguments.protocol == RELEASED_NOISE:
            print(f"WARNING: {NOTHING_MISSING}")
        header = evaluator.header(config, path, run.epoch, split)
        print(write_results(path.parent, header, results, records, variant(path, split, run.changed)))


if __name__ == "__main__":
    run_guarded(main)
