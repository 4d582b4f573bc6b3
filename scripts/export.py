"""A trained model to share: python scripts/export.py RUN OUT

Writes the layout of the Hugging Face hub to the folder OUT: model.safetensors, config.json,
vocabulary.json, and README.md, a model card with the run's results, its command, data and licence.
Every --checkpoint reads such a folder. Nothing is uploaded.
"""

from __future__ import annotations

import argparse
import json
import re
import shlex
import sys
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

from dataset.extracted import WARNING
from engine.checkpoint import load_checkpoint
from engine.config import REGISTRIES, compose
from engine.errors import UsageError, run_guarded, shown
from engine.exported import without_machine, write_exported
from engine.metrics import table
from engine.restore import checkpoint_in, load_trained

CARD = """---
license: "{licence}"
library_name: pytorch
pipeline_tag: visual-question-answering
tags: [audio-visual-question-answering, missing-modality, {backbone}, {method}]
---
# {backbone} with {method}, trained on {dataset}

Answers questions on a video, with its sound or its picture missing: the backbone `{backbone}`, for a
missing modality the method `{method}`. {parameters:,} parameters, after epoch {epoch}.
{warning}
## Results
{results}

## Data
`dataset={dataset}`, {words} words and {answers} answers in the vocabulary, {segments} segments of
{channels} channels of sound and {visual} of picture. Terms of use of the data set apply.
{digests}

## Use
With the code of this model, OUT being this folder:

```bash
{use}
```

## Trained by
```bash
{command}
```

## Licence
{licence}
"""


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("run", type=Path, help="run folder or checkpoint")
    parser.add_argument("out", type=Path, help="folder to write, new or empty")
    parser.add_argument("--licence", default="mit", help="of the weights, as the hub names it (default mit)")
    parser.add_argument("--force", action="store_true", help="replace the files of an earlier export")
    return parser.parse_args()


def command(config: dict[str, Any]) -> str:
    """The training command with every option that is not at its default."""
    names = [f"{kind}={config[kind]['name']}" for kind in REGISTRIES]
    default = compose(None, names)
    changed = [f"{key}={json.dumps(value) if not isinstance(value, str) else value}"
               for key, value in differing(config, default)]
    return shlex.join(["python", "main_train.py", *names, *changed])


def differing(config: dict[str, Any], default: dict[str, Any], prefix: str = "") -> list[tuple[str, Any]]:
    """(key, value) of every option that is another one by default."""
    pairs = []
    for key, value in config.items():
        if isinstance(value, dict):
            pairs += differing(value, default[key], f"{prefix}{key}.")
        elif value != default[key]:
            pairs.append((prefix + key, value))
    return pairs


def results_of(path: Path, epoch: int) -> str:
    """The table of the results beside the checkpoint `path`, where they are of its epoch."""
    try:
        results = json.loads(path.with_name("results.json").read_bytes())
        if results["epoch"] == epoch and results["split"] == "test":
            return f"Percent of the test questions, seed {results['seed']}:\n\n```\n{table(results['scenarios'])}\n```"
    except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError):
        pass
    return "Not evaluated on the test questions."


def uses(config: dict[str, Any], choices: int) -> str:
    """The commands that this model takes; embedded scenes are no video."""
    ask = 'python scripts/answer.py --checkpoint OUT --video clip.mp4 --question "A question?" --mute'
    ask += ' --choices "one" "another"' if choices else ""
    lines = [] if config["dataset"]["name"] == "synthetic" else [ask]
    return "\n".join([*lines, "python main_test.py --checkpoint OUT dataset.root=DIR"])


def card(path: Path, state: dict[str, Any], licence: str) -> str:
    config, spec = state["config"], state["spec"]
    digests = "\n".join(f"- questions of `{split}`: SHA-256 {digest}"
                        for split, digest in (state.get("annotations") or {}).items())
    return CARD.format(
        **{kind: config[kind]["name"] for kind in REGISTRIES}, licence=licence, epoch=state["epoch"], digests=digests,
        parameters=sum(value.numel() for value in state["model"].values()), results=results_of(path, state["epoch"]),
        words=len(state["vocabulary"]["words"]), answers=len(state["vocabulary"]["answers"]),
        segments=spec["segments"], channels=spec["audio_channels"], visual=spec["visual_channels"],
        command=command(config), use=uses(config, spec["choices"]),
        warning=f"\n{WARNING}\n" if state.get("dry_run") else "")


def main() -> None:
    options = parse()
    if not re.fullmatch(r"[a-z0-9.+-]+", options.licence):
        raise UsageError(f"--licence {shown(options.licence)} is no name of a licence; give one of the hub, such as "
                         "mit, apache-2.0 or cc-by-4.0")
    path = checkpoint_in(options.run)
    trained = load_trained(path)                         # refuses what cannot be used
    if options.out.exists() and not options.out.is_dir():
        raise UsageError(f"{options.out} is no folder; choose another place")
    if options.out.is_dir() and any(options.out.iterdir()) and not options.force:
        raise UsageError(f"{options.out} is not empty; choose another folder, or replace its files with --force")
    state = load_checkpoint(path) | {"config": without_machine(trained.config)}
    write_exported(options.out, state, card(path, state, options.licence))
    print(f"written: {options.out}/model.safetensors, config.json, vocabulary.json, README.md")


if __name__ == "__main__":
    run_guarded(main)
