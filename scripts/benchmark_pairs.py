"""A training step and an answer of every backbone with every method at the real shapes.

Each pair is a process of its own (scripts/benchmark.py), so that one pair's memory does not count
for the next. What is in the output file already is not measured again.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

from tabulate import tabulate
from tqdm import tqdm

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

from dataset.files import write_json, write_text
from engine.errors import UsageError, positive, run_guarded
from models import BACKBONES, METHODS


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("overrides", nargs="*", metavar="key=value", help="for every pair, e.g. runtime.bf16=true")
    parser.add_argument("--backbones", metavar="NAME,NAME", default=",".join(BACKBONES), help="default: %(default)s")
    parser.add_argument("--methods", metavar="NAME,NAME", default=",".join(METHODS), help="default: %(default)s")
    parser.add_argument("--batch-size", type=positive, default=2, help="questions per step (default 2)")
    parser.add_argument("--steps", type=positive, default=1, help="counted steps, after two that are not (default 1)")
    parser.add_argument("--device", choices=("auto", "cpu", "cuda"), default="auto")
    parser.add_argument("--out", type=Path, default=Path("runs/benchmark-pairs"), help="folder of table.md and .json")
    return parser.parse_intermixed_args()


def chosen(names: str, registry: dict[str, str], option: str) -> list[str]:
    """The names of a comma-separated option."""
    for name in (asked := names.split(",")):
        if name not in registry:
            raise UsageError(f"{option}: '{name}' is not known; expected some of {', '.join(registry)}, separated by "
                             "commas")
    return asked


def measure(what: str, backbone: str, method: str, options: argparse.Namespace) -> dict[str, Any]:
    """The JSON object of one benchmark, or {"error": its last line}."""
    command = [sys.executable, str(ROOT / "scripts" / "benchmark.py"), what, f"backbone={backbone}", f"method={method}",
               *options.overrides, "--batch-size", str(options.batch_size), "--steps", str(options.steps),
               "--device", options.device, "--json"]
    done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode:
        return {"error": (done.stderr.strip().splitlines() or [f"exit status {done.returncode}"])[-1]}
    return json.loads(done.stdout.strip().splitlines()[-1])


def row(backbone: str, method: str, cell: dict[str, Any]) -> list[Any]:
    train, answer = cell["train-step"], cell["inference"]
    failed = train.get("error") or answer.get("error")
    if failed:
        return [backbone, method, f"failed: {failed}"]
    size = train["batch_size"]
    return [
        backbone, method, f"{train['parameters'] / 1e6:.1f}", f"{train['trained_parameters'] / 1e6:.1f}",
        f"{answer['flops_per_step'] / size / 1e9:.1f}", f"{train['flops_per_step'] / size / 1e9:.1f}",
        f"{train['seconds_per_step']:.2f}", f"{answer['seconds_per_step']:.2f}",
        f"{train['peak_memory_mb'] / 1024:.1f}",
    ]


def render(cells: dict[str, dict[str, Any]], command: str) -> str:
    """Markdown; a question's FLOPs at test are those with the audio missing, the costly case."""
    head = ["backbone", "method", "parameters (M)", "trained (M)", "GFLOP per question, test",
            "GFLOP per question, training", "training step (s)", "test step (s)", "peak memory (GiB)"]
    rows = [row(*name.split("/"), cell) for name, cell in cells.items()]
    some = next((c["train-step"] for c in cells.values() if "device" in c["train-step"]), {})
    where = f"batch {some['batch_size']}, {some['device']}, {some['threads']} threads" if some else ""
    return f"`{command}`\n\n{where}\n\n{tabulate(rows, headers=head, tablefmt='github', disable_numparse=True)}\n"


def main() -> None:
    options = parse()
    path = options.out / "table.json"
    command = " ".join(["python scripts/benchmark_pairs.py", *sys.argv[1:]])
    cells = json.loads(path.read_text())["pairs"] if path.is_file() else {}
    pairs = [(b, m) for b in chosen(options.backbones, BACKBONES, "--backbones")
             for m in chosen(options.methods, METHODS, "--methods")]
    for backbone, method in tqdm(pairs, desc="pairs"):
        name = f"{backbone}/{method}"
        if name in cells and not any("error" in part for part in cells[name].values()):
            continue
        cells[name] = {what: measure(what, backbone, method, options) for what in ("train-step", "inference")}
        write_json(path, {"command": command, "pairs": cells})
        write_text(options.out / "table.md", render(cells, command))
    print(render(cells, command))
    if any("error" in part for cell in cells.values() for part in cell.values()):
        raise UsageError(f"some pairs failed; {path} has their messages")


if __name__ == "__main__":
    run_guarded(main)
