"""A small data set of one's own by the commands of docs/data.md: what is printed at each step."""

import json
import sys

import numpy as np
import pytest
from commands import write_dataset
from scipy.io import wavfile

from dataset.extract import parse_weights
from dataset.extract.media import SAMPLE_RATE
from dataset.extract.pipeline import Settings, extract
from dataset.extracted import WARNING, is_dry_run
from dataset.types import DataError
from engine.answerer import Answerer
from engine.errors import UsageError
from scripts import benchmark, check_dataset, extract_features

SHORT = ["train.epochs=2", "train.max_steps=2", "train.batch_size=8", "runtime.workers=0", "runtime.device=cpu"]


@pytest.fixture
def data(tmp_path):
    return write_dataset(tmp_path / "data")


@pytest.fixture
def check(data, monkeypatch, capsys):
    """Run check_dataset.py on `data`; returns exit code or error line, and what is printed."""
    def run(*arguments: str) -> tuple[object, str]:
        monkeypatch.setattr(sys, "argv", ["check_dataset.py", str(data), *arguments])
        code = 0
        try:
            check_dataset.main()
        except (SystemExit, UsageError) as stop:
            code = stop.code if isinstance(stop, SystemExit) else str(stop)
        return code, capsys.readouterr().out
    return run


def test_the_check_ends_with_the_commands_for_small_data(data, check):
    """With a configuration file, too; another file is taken as it is."""
    for files in ([], ["./configs/own_data.yaml"]):
        code, out = check(*files, "dataset.stride=1", "dataset.label=garden")
        name = [] if files else ["dataset=music_avqa"]
        given = " ".join([*name, f"dataset.root={data}", "dataset.stride=1", "dataset.label=garden"])
        assert code == 0 and out.splitlines()[-3:] == [
            f"  python scripts/benchmark.py run configs/own_data.yaml {given}",
            f"  bash train.sh configs/own_data_plain.yaml {given}", f"  bash train.sh configs/own_data.yaml {given}"]
    code, out = check("configs/paper_plain.yaml", "dataset=music_avqa", "dataset.stride=1")
    assert out.splitlines()[-1].startswith("  bash train.sh configs/paper_plain.yaml dataset.root=")


def test_the_advice_fits_the_fault(data, check):
    """Each fault alone, with the file or the command that mends it."""
    missing, damaged = data / "feats/vggish/test0003.npy", data / "feats/res18_14x14/train0001.npy"
    kept = missing.read_bytes()
    missing.unlink()
    extraction = f"python scripts/extract_features.py VIDEOS {data / 'feats'} --features vggish res18_14x14"
    code, out = check("dataset.stride=1")
    assert code == 1 and f"  {extraction} --seconds SECONDS\n" in out and "  rm " not in out
    (data / "feats/extraction.json").write_text('{"seconds": 6, "stride": 1, "dtype": "float16"}')
    missing.write_bytes(kept)
    damaged.write_bytes(damaged.read_bytes()[:200])
    code, out = check("dataset.stride=1")
    assert code == 1 and f"  rm {damaged}\n  {extraction} --seconds 6 --stride 1 --dtype float16\n" in out
    (data / "json_update/avqa-val.json").unlink()
    code, out = check("dataset.stride=1")
    assert code == 1 and f"write {data}/json_update/avqa-val.json (format: docs/data.md, section 4)" in out


def test_features_that_cannot_be_opened_are_one_line(data, check):
    code, _ = check("dataset.stride=1", "dataset.question_features=feats/clip_words.npz")
    assert "clip_words.npz do not exist" in code
    assert f"--question-format music_avqa --questions {data}/json_update/avqa-train.json" in code
    code, _ = check("dataset.stride=1", "dataset.audio_folder=feats/none")
    assert "none does not exist" in code and f"Next: python scripts/extract_features.py VIDEOS {data}/feats" in code
    code, _ = check("configs/none.yaml")
    assert "configuration file configs/none.yaml does not exist" in code


def test_both_stages_of_two_data_sets_lie_apart(data, tmp_path, in_process):
    """By the two files as they are, in folders of the labels; a strange start is named."""
    common = [f"dataset.root={data}", f"run.root={tmp_path}", *SHORT]
    for label in ("garden", "yard"):
        for stage, method in (("own_data_plain", "plain"), ("own_data", "modality_dropout")):
            code, out, err = in_process("main_train.py", f"configs/{stage}.yaml", *common, f"dataset.label={label}")
            assert code == 0 and (tmp_path / f"{label}-avst-{method}-s1/results.json").is_file(), err
            assert "another data set" not in out
    for split in ("train", "val"):
        path = data / f"json_update/avqa-{split}.json"
        records = json.loads(path.read_text())
        path.write_text(json.dumps([*records, records[0]]))
    start = f"train.init={tmp_path}/yard-avst-plain-s1/best.pt"
    code, out, err = in_process("main_train.py", "configs/own_data.yaml", *common, "dataset.label=third", start)
    assert code == 0 and "was trained on another data set (dataset.name='music_avqa' dataset.label='yard'" in out, err
    path = data / "json_update/avqa-train.json"
    path.write_text(path.read_text().replace("stage", "lawn"))
    code, _, err = in_process("main_train.py", "configs/own_data.yaml", *common, "dataset.label=fourth", start)
    assert code == 2 and "another vocabulary" in err


def test_what_a_run_costs_is_printed_before_it(data, monkeypatch, capsys):
    monkeypatch.setattr(sys, "argv", ["benchmark.py", "run", "configs/own_data.yaml", f"dataset.root={data}", "--steps",
                                      "1", "--device", "cpu"])
    benchmark.main()
    cost = json.loads(capsys.readouterr().out)
    assert cost["batch_size"] == 16 and cost["steps"] == 2 * cost["epochs"]    # 24 questions: two steps an epoch
    assert cost["hours"] == pytest.approx(cost["steps"] * cost["seconds_per_step"] / 3600)


def test_a_dry_run_is_marked_wherever_it_shows(tmp_path, monkeypatch, capsys, in_process):
    """Manifest, training, results, evaluation; real features are not mixed in."""
    root = write_dataset(tmp_path / "data")
    assert not is_dry_run(root / "feats")
    (root / "sounds").mkdir()
    wavfile.write(root / "sounds" / "a.wav", SAMPLE_RATE, np.zeros(2 * SAMPLE_RATE, np.float32))
    monkeypatch.setattr(sys, "argv", ["extract_features.py", str(root / "sounds"), str(root / "made"), "--features",
                                      "vggish", "--weights", "random", "--workers", "0", "--seconds", "2",
                                      "--stride", "2"])
    extract_features.main()
    assert WARNING in capsys.readouterr().out
    assert json.loads((root / "made/manifest.jsonl").read_text())["weights"] == "random"
    with pytest.raises(DataError, match="holds features extracted with .*'weights': 'random'"):
        extract([], root / "made", [], Settings(seconds=2, stride=2))
    (root / "made/extraction.json").rename(root / "feats/extraction.json")
    assert is_dry_run(root / "feats")
    code, out, err = in_process("main_train.py", "dataset=music_avqa", f"dataset.root={root}", "dataset.stride=2",
                                "method=plain", "train.epochs=1", "train.max_steps=1", f"run.root={tmp_path}",
                                "run.name=r", "runtime.workers=0", "runtime.device=cpu")
    assert code == 0 and out.count(WARNING) == 2, err
    assert json.loads((tmp_path / "r/results.json").read_text())["warning"] == WARNING
    code, out, err = in_process("main_test.py", "--checkpoint", str(tmp_path / "r"))
    assert code == 0 and out.count(WARNING) == 1, err
    with pytest.raises(UsageError, match="dry run, on features of random.*--weights random"):
        Answerer(tmp_path / "r", device="cpu")
    answerer = Answerer(tmp_path / "r", parse_weights(["random"]), device="cpu")
    read = []
    monkeypatch.setattr("engine.answerer.read_clip", lambda path, seconds: read.extend(seconds))
    answerer.decode("a.mp4")                 # every second row of files that hold every second second
    assert read == [4 * i for i in range(answerer.spec.segments)] and answerer.seconds == 4 * len(read)
