"""A short run on a small embedded benchmark beats what the questions alone give."""

import json

SMALL = ["dataset=synthetic", "dataset.train_videos=1500", "dataset.val_videos=10", "dataset.test_videos=200",
         "dataset.channels=64", "dataset.noise=0.1", "method=plain", "train.epochs=100", "train.batch_size=32",
         "train.learning_rate=2e-3", "train.schedule=linear", "train.select_by=[complete]", "evaluate.every=100",
         "evaluate.scenarios=[complete]", "runtime.device=cpu"]


def test_a_short_run_passes_its_floor(tmp_path, in_process):
    """500 steps end 9, 4 and 4 points over the floor with three seeds; one step stays far below."""
    accuracy = {}
    for steps in (1, 500):
        code, _, err = in_process("main_train.py", *SMALL, f"dataset.root={tmp_path / 'data'}", "run.name=r",
                                  f"train.max_steps={steps}", f"run.root={tmp_path / str(steps)}")
        assert code == 0, err
        result = json.loads((tmp_path / str(steps) / "r/results.json").read_text())["scenarios"]["complete"]
        accuracy[steps] = result["overall"]
    floor = result["question_only_floor"]
    assert accuracy[500] > floor + 2 and accuracy[1] < floor - 10
