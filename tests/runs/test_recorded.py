"""Recorded absence: the presence file, simulated absence in training, losses on what is there."""

import json
import shutil

import numpy as np
import pytest
import torch
from commands import SMALL
from toy import named

from dataset import SCENARIOS, build_dataset, make_loader
from dataset.presence import Recorded, read_recorded
from dataset.types import AUDIO, VISUAL, DataError
from engine.config import compose
from models import build_model
from models.objective import total_loss


@pytest.fixture
def lacking(own_data, tmp_path):
    """The tiny data set without the sound of a video, the picture of another, half of a third."""
    root = tmp_path / "data"
    shutil.copytree(own_data, root)
    (root / "feats/vggish/train0000.npy").unlink()
    (root / "feats/res18_14x14/train0001.npy").unlink()
    (root / "feats/presence.json").write_text(json.dumps({
        "train0000": {"audio": 0, "visual": 6}, "train0001": {"audio": 6, "visual": 0},
        "train0002": {"audio": 3, "visual": 3}}))
    return root


def build(root, **options):
    return build_dataset({"name": "music_avqa", "root": str(root), "stride": 2, **options})


def test_recorded_absence_is_in_the_mask_and_needs_no_file(lacking):
    data = build(lacking)
    questions = data.question_set("train", data.vocabulary(), negatives="other_video")
    by_video = {q.video_id: questions[i] for i, q in enumerate(questions.questions)}
    present = {video: batch.presence[0].tolist() for video, batch in by_video.items()}
    assert present["train0000"] == [[False, True]] * 3 and present["train0001"] == [[True, False]] * 3
    assert present["train0002"] == [[True, True], [True, True], [False, False]]     # rows 0, 2, 4 of which 3 are there
    assert present["train0003"] == [[True, True]] * 3
    assert not by_video["train0000"].audio.any() and not by_video["train0002"].visual[0, 2].any()
    assert data.question_set("train", data.vocabulary(), SCENARIOS["audio_missing"])[0].presence[..., AUDIO].sum() == 0


def test_negatives_come_from_videos_with_a_picture(lacking):
    data = build(lacking)
    for epoch in range(20):
        questions = data.question_set("train", data.vocabulary(), negatives="other_video", epoch=epoch)
        for row in questions[9].negative_visual[0]:
            assert bool(row.any())


def test_a_missing_file_is_an_error_unless_recorded(lacking):
    (lacking / "feats/presence.json").unlink()
    data = build(lacking)
    with pytest.raises(DataError, match="train0000"):
        data.question_set("train", data.vocabulary())


@pytest.mark.parametrize("text", ["[]", "{", '{"a": {"audio": 1}}', '{"a": {"audio": -1, "visual": 2}}',
                                  '{"a": {"audio": "x", "visual": 2}}', '{"a": 3}'])
def test_a_damaged_presence_file_is_named(tmp_path, text):
    (tmp_path / "presence.json").write_text(text)
    with pytest.raises(DataError, match="presence.json must hold"):
        read_recorded(tmp_path, 0.0)


def test_the_simulated_share_is_met_in_training_only():
    recorded = Recorded({}, train_missing_ratio=0.4)
    masks = np.stack([recorded.presence(f"v{i}", 3, 1, train=True) for i in range(4000)])
    absent = ~masks.any(axis=1)                                         # (videos, 2)
    assert np.abs(absent.mean(axis=0) - 0.2).max() < 0.03 and not absent.all(axis=1).any()
    assert recorded.presence("v1", 3, 1, train=False).all()
    leaning = Recorded({}, train_missing_ratio=0.4, train_missing_audio=0.9)
    one_sided = np.stack([leaning.presence(f"v{i}", 3, 1, train=True) for i in range(4000)])
    assert np.abs((~one_sided.any(axis=1)).mean(axis=0) - [0.36, 0.04]).max() < 0.03
    assert (one_sided.all(axis=(1, 2)) == masks.all(axis=(1, 2))).all()            # the same videos lose something
    more = Recorded({}, train_missing_ratio=1.0)
    assert all(not more.presence(f"v{i}", 3, 1, train=True).all() for i in range(50))


@pytest.mark.parametrize("method", ["plain", "modality_dropout", "rmm_avr", "prompts", "shaspec", "actionmae",
                                    "drfuse"])
def test_what_was_never_recorded_reaches_no_loss_or_gradient(lacking, method):
    """Garbage in the absent rows changes nothing in a training step, and all of it is finite."""
    small = [*SMALL, f"dataset.root={lacking}", f"method={method}"]
    config = compose(None, [a for a in small if method == "rmm_avr" or not a.startswith(("rmm.", "avr."))])
    data = build_dataset(config["dataset"])
    vocabulary = data.vocabulary()
    loader = make_loader(data.question_set("train", vocabulary), batch_size=9, shuffle=False)
    results = []
    for garbage in (0.0, float("nan")):
        torch.manual_seed(0)
        model = build_model(data.spec(vocabulary), config["backbone"], config["method"]).train()
        batch = next(iter(loader))
        batch.audio[~batch.presence[..., AUDIO]] = garbage
        batch.visual[~batch.presence[..., VISUAL]] = garbage
        terms = model(batch).terms
        total_loss(terms, model.loss_weights).backward()
        results.append([*named(terms).values(), *(p.grad for p in model.parameters() if p.grad is not None)])
    for a, b in zip(*results, strict=True):
        assert bool(a.isfinite().all()) and torch.equal(a, b)


def test_a_run_trains_on_data_with_missing_modalities(lacking, tmp_path, in_process):
    code, out, err = in_process("main_train.py", *SMALL, f"dataset.root={lacking}", "dataset.train_missing_ratio=0.5",
                                f"run.root={tmp_path / 'runs'}", "run.name=r", "train.epochs=1")
    assert code == 0, err
    assert (tmp_path / "runs/r/results.json").is_file()


def test_complete_input_is_answered_alike_under_both_protocols(lacking, tmp_path, in_process):
    """Also where a test video has no sound: the released evaluation has nothing to add noise to."""
    (lacking / "feats/vggish/test0000.npy").unlink()
    record = lacking / "feats/presence.json"
    record.write_text(json.dumps(json.loads(record.read_text()) | {"test0000": {"audio": 0, "visual": 6}}))
    arguments = [*SMALL, f"dataset.root={lacking}", f"run.root={tmp_path / 'runs'}", "run.name=r", "train.max_steps=2"]
    assert in_process("main_train.py", *arguments)[0] == 0
    folder, confidences = tmp_path / "runs/r", []
    for protocol in ("missing", "released_noise"):
        code, _, err = in_process("main_test.py", "--checkpoint", folder, "--missing", "none", "--protocol", protocol)
        assert code == 0, err
        records = [json.loads(line) for line in (folder / "predictions.jsonl").read_text().splitlines()]
        confidences.append([r["confidence"] for r in records if r["scenario"] == "complete"])
    assert len(confidences[0]) == 24 and confidences[0] == confidences[1]
