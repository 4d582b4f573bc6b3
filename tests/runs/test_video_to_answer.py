"""From video files to features, a packed store, training and an answer, by the commands."""

import json
import re

import numpy as np
import pytest
import torch
from commands import command
from torchvision.models import resnet18

from dataset.extract.example import Example, write_example_dataset, write_video
from dataset.extract.vggish import VGGish

TRAIN = ["dataset=music_avqa", "dataset.stride=1", "train.epochs=1", "train.max_steps=2", "train.batch_size=4",
         "runtime.workers=0", "rmm.slots=4", "avr.steps=2", "avr.width=8", "evaluate.batch_size=4"]


@pytest.fixture(scope="module")
def weights(tmp_path_factory):
    """Networks of the published shapes with random weights."""
    folder = tmp_path_factory.mktemp("weights")
    torch.manual_seed(0)
    torch.save(VGGish().state_dict(), folder / "vggish.pth")
    torch.save(resnet18().state_dict(), folder / "resnet.pth")
    return ["--weights", f"vggish={folder / 'vggish.pth'}", f"res18_14x14={folder / 'resnet.pth'}"]


@pytest.fixture(scope="module")
def root(tmp_path_factory, weights):
    """Six videos of four seconds with their features; one has no sound track, one no picture."""
    root = tmp_path_factory.mktemp("example")
    write_example_dataset(root, 6, 4.0)
    write_video(root / "videos" / "00000000.mp4", Example(seconds=4, sound=False))
    write_video(root / "videos" / "00000001.mp4", Example(seconds=4, picture=False))
    (root / "videos" / "broken.mp4").write_bytes(b"\0" * 100)
    done = command("scripts/extract_features.py", root / "videos", root / "feats", "--seconds", "4", *weights)
    assert done.returncode == 0, done.stderr
    assert "6 videos extracted" in done.stdout and "00000000: audio 0, visual 4" in done.stdout
    assert re.search(r"broken: cannot be decoded", done.stdout)
    return root


@pytest.fixture(scope="module")
def run(root, tmp_path_factory):
    """A checkpoint trained from a packed store."""
    runs = tmp_path_factory.mktemp("runs")
    done = command("scripts/pack_features.py", root, "--stride", "1")
    assert done.returncode == 0, done.stderr
    done = command("main_train.py", *TRAIN, f"dataset.root={root}", "dataset.features=packed", f"run.root={runs}",
                   "run.name=r")
    assert done.returncode == 0, done.stderr
    assert set(json.loads((runs / "r" / "results.json").read_text())["scenarios"]["complete"]["by_source"]) == {"real"}
    return runs / "r"


def ask(run, video, weights, *options, question="Is there a cello sound?"):
    return command("scripts/answer.py", "--checkpoint", run, "--video", video, "--question", question, *weights,
                   *options)


def test_features_are_those_of_the_recipe(root):
    sound = np.load(root / "feats/vggish/00000002.npy")
    maps = np.load(root / "feats/res18_14x14/00000002.npy")
    assert sound.shape == (4, 128) and maps.shape == (4, 512, 14, 14) and sound.dtype == maps.dtype == np.float16
    assert (sound >= 0).all() and (maps >= 0).all() and maps.any()
    assert not (root / "feats/vggish/00000000.npy").exists()


def test_the_data_set_is_found_whole(root):
    done = command("scripts/check_dataset.py", root, "dataset.stride=1")
    assert done.returncode == 0, done.stdout + done.stderr
    for stage in ("own_data_plain", "own_data"):
        line = f"bash train.sh configs/{stage}.yaml dataset=music_avqa dataset.root={root} dataset.stride=1"
        assert line in done.stdout
    assert "2 videos lack something" in done.stdout and "12 questions on 4 videos" in done.stdout


def test_what_a_data_set_lacks_is_named(root, tmp_path):
    for folder in ("json_update", "feats"):
        (tmp_path / folder).symlink_to(root / folder)
    (tmp_path / "json_update").unlink()
    (tmp_path / "json_update").mkdir()
    for split in ("train", "test"):
        records = json.loads((root / f"json_update/avqa-{split}.json").read_text())
        if split == "test":
            records[0]["video_id"] = "absent"
            records.append({**records[1], "anser": "something else"})
        (tmp_path / f"json_update/avqa-{split}.json").write_text(json.dumps(records))
    done = command("scripts/check_dataset.py", tmp_path, "dataset.stride=1")
    assert done.returncode == 1, done.stdout + done.stderr
    assert "avqa-val.json does not exist" in done.stdout and "absent: audio: no file in" in done.stdout
    assert "1 questions are listed more than once" in done.stdout and "3 questions can be used" in done.stdout


@pytest.mark.parametrize("options, lines", [
    ([], ["audio: present", "visual: present"]),
    (["--mute"], ["audio: missing (taken away by --mute); method=rmm_avr answers", "visual: present"]),
    (["--blank"], ["audio: present", "visual: missing (taken away by --blank); method=rmm_avr answers"]),
])
def test_an_answer_with_and_without_a_modality(root, run, weights, options, lines):
    done = ask(run, root / "videos/00000005.mp4", weights, *options)
    assert done.returncode == 0, done.stderr
    assert all(line in done.stdout for line in lines)
    shares = [float(s) for s in re.findall(r"([\d.]+) %  \w+", done.stdout)]
    assert shares == sorted(shares, reverse=True) and sum(shares) == pytest.approx(100, abs=0.3)


def test_a_clip_without_a_stream_and_a_short_one_are_answered(run, weights, tmp_path):
    write_video(tmp_path / "short.mp4", Example(seconds=2, sound=False))
    done = ask(run, tmp_path / "short.mp4", weights)
    assert done.returncode == 0, done.stderr
    assert "audio: missing" in done.stdout and "visual: 2 of 4 segments present" in done.stdout


def test_several_questions_are_a_table_or_json(root, run, weights, tmp_path):
    """Each is answered as it is alone; candidates are the only answers."""
    video, file = root / "videos/00000005.mp4", tmp_path / "questions.jsonl"
    file.write_text('{"question": "Is there a cello sound?", "choices": ["yes", "no"]}\n\n'
                    '{"question": "Is there a celo?"}\n')
    alone = ask(run, video, weights).stdout
    done = ask(run, video, weights, "--questions", file, "--json", "--mute")
    assert done.returncode == 0, done.stderr
    content = json.loads(done.stdout)
    assert [len(q["answers"]) for q in content["questions"]] == [4, 2, 4] and not any(content["present"]["audio"])
    assert {a["answer"] for a in content["questions"][1]["answers"]} == {"yes", "no"}
    assert sum(a["probability"] for a in content["questions"][1]["answers"]) == pytest.approx(1)
    assert "did you mean 'cello'?" in content["questions"][2]["notes"][0] and "'celo'" in done.stderr
    done = ask(run, video, weights, "--questions", file)
    share, best = re.search(r"([\d.]+ %)  (\w+)", alone).groups()
    assert f"{best} {share}" in done.stdout.splitlines()[-3] and done.stdout.splitlines()[-5].startswith("question")


def test_bad_questions_and_clips_are_one_line(root, run, weights, tmp_path):
    video = root / "videos/00000005.mp4"
    done = ask(run, video, weights, question="Is there a celo sound?")
    assert done.returncode == 0
    assert "'celo' is outside the vocabulary and is ignored; did you mean 'cello'?" in done.stdout
    (tmp_path / "text.mp4").write_text("no video")
    for clip, question, message in ((video, "xyzzy plugh", "no word of the vocabulary"),
                                    (tmp_path / "text.mp4", "Is there a cello sound?", "text.mp4: cannot be decoded"),
                                    (tmp_path / "none.mp4", "Is there a cello sound?", "none.mp4")):
        done = ask(run, clip, weights, question=question)
        assert done.returncode == 2 and "Traceback" not in done.stderr, done.stderr
        assert message in done.stderr
