"""Train a model, evaluate it, print the table.

An interrupted run continues when the same command is given again.
"""

from __future__ import annotations

import argparse

from dataset import SCENARIOS, build_dataset
from engine import runtime
from engine.config import compose, run_folder, to_yaml
from engine.errors import run_guarded
from engine.loop import Trainer

EPILOG = """examples:
  python main_train.py configs/embedded_plain.yaml             the backbone alone on the embedded benchmark
  python main_train.py configs/embedded.yaml                   the paper's method, from there
  python main_train.py configs/embedded.yaml configs/ablation/slots_25.yaml
  python main_train.py configs/paper.yaml dataset=music_avqa dataset.root=DIR rmm.slots=50 run.name=slots50
  torchrun --nproc-per-node 2 main_train.py configs/embedded.yaml
keys: see configs/default.yaml, configs/dataset, configs/backbone, configs/method"""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, epilog=EPILOG,
                                     formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("arguments", nargs="*", metavar="[CONFIG.yaml ...] [key=value ...]",
                        help="configuration files and overrides, both optional; later ones win")
    arguments = parser.parse_args().arguments
    config = compose([a for a in arguments if "=" not in a], [a for a in arguments if "=" in a])
    folder = run_folder(config)
    data = build_dataset(config["dataset"])
    for split in ("train", "val", "test"):       # fail on a missing file now, not after hours
        data.check_files(split, SCENARIOS["complete"])
    vocabulary = data.vocabulary()
    with runtime.alone_in_run(folder):
        trainer = Trainer(config, folder, data, vocabulary, data.spec(vocabulary))
        trainer.log(f"{to_yaml(config)}run folder: {folder}")
        trainer.fit()
        trainer.test()


if __name__ == "__main__":
    run_guarded(main, resumable=True)
