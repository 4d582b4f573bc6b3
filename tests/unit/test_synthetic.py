"""The embedded benchmark on disk: complete, repeatable, disjoint, readable as any other."""

import numpy as np
import pytest

from dataset import SCENARIOS, build_dataset, memory, question_only_floor
from dataset.synthetic.data import audio_features, codes, make_split
from dataset.synthetic.world import KINDS, sample
from dataset.types import DataError
from engine.config import compose
from engine.errors import UsageError

TINY = {"train_videos": 60, "val_videos": 20, "test_videos": 40, "channels": 16}


def build(root, **changes):
    return build_dataset({"name": "synthetic", "root": str(root), **TINY, **changes})


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    return build(tmp_path_factory.mktemp("synthetic") / "data")


def test_the_same_seed_gives_the_same_files(data, tmp_path):
    """And another seed others."""
    again, other = build(tmp_path / "again"), build(tmp_path / "other", data_seed=1)
    assert data.questions("test") == again.questions("test") != other.questions("test")
    for modality in (0, 1):
        np.testing.assert_array_equal(data.read("train000003", modality), again.read("train000003", modality))
        assert not np.array_equal(data.read("train000003", modality), other.read("train000003", modality))


def test_splits_share_no_scene(data):
    videos = [{q.video_id for q in data.questions(s)} for s in ("train", "val", "test")]
    assert not (videos[0] & videos[1] or videos[0] & videos[2] or videos[1] & videos[2])
    features = [data.read(v, 0).tobytes() for split in videos for v in sorted(split)]
    assert len(set(features)) == len(features)


def test_other_settings_are_not_mixed_with_what_is_there(data):
    with pytest.raises(DataError, match="other settings"):
        build(data.root, data_seed=5)
    build(data.root)


def test_a_generation_cut_off_is_not_taken_for_whole(tmp_path):
    (tmp_path / "data" / "feats").mkdir(parents=True)
    with pytest.raises(DataError, match="not empty"):
        build(tmp_path / "data")


def test_oracle_stands_above_the_floor_and_below_complete(data):
    questions = data.questions("test")
    floor = np.mean(question_only_floor(data.questions("train"), questions))
    best = {name: np.mean(list(data.oracle("test", s).values())) for name, s in SCENARIOS.items()}
    assert best["complete"] == 1
    assert min(best["audio_missing"], best["visual_missing"]) > max(best["both_missing"], floor) + 0.15
    assert len(data.oracle("test", SCENARIOS["audio_missing"])) == len(questions)


def test_scenes_beyond_the_memory_are_refused_before_any_is_made(tmp_path, monkeypatch):
    """A million scenes of 6 segments, 4,096 channels and 6 cells are 1,180 GB of float64 maps."""
    monkeypatch.setattr(memory, "free_memory", lambda: 1e12)
    with pytest.raises(DataError, match="1000000 scenes with 4096 channels needs about .* GB of memory, 1,000.0"):
        build(tmp_path / "data", train_videos=1_000_000, channels=4096)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("change", ["train_videos=1000000000", "questions_per_video=1000000000", "channels=1000000000",
                                    "noise=.inf"])
def test_absurd_sizes_are_bounded(change):
    with pytest.raises(UsageError, match=f"dataset.{change.partition('=')[0]}"):
        compose(None, ["dataset=synthetic", f"dataset.{change}"])


@pytest.mark.parametrize("content", [b"", b"[true", b"\xff", b"[" * 100_000, b"{}", b"[1, 2]", b"[true]"])
def test_a_damaged_oracle_is_made_again(data, content):
    right = data.oracle("val", SCENARIOS["audio_missing"])
    path = data.root / "oracle-val-audio_missing.json"
    whole = path.read_bytes()
    path.write_bytes(content)
    assert data.oracle("val", SCENARIOS["audio_missing"]) == right and path.read_bytes() == whole


@pytest.mark.parametrize("content", [b"", b"{", b"\xff", b"[" * 100_000, b"3"])
def test_a_damaged_manifest_is_one_line_and_nothing_is_deleted(tmp_path, content):
    (tmp_path / "data").mkdir()
    (tmp_path / "data/manifest.json").write_bytes(content)
    with pytest.raises(DataError, match="delete (it|.*data, it is generated again)"):
        build(tmp_path / "data")
    assert (tmp_path / "data/manifest.json").read_bytes() == content


def test_questions_of_a_split_are_those_of_the_oracle(data):
    _, asked = make_split("test", data.settings)
    assert [q["answer"] for q in asked] == [q.answer for q in data.questions("test")]


def test_what_sounds_can_be_read_off_the_features():
    """The oracle conditions on clean observations; least squares on the known codes recovers
    loudness and rhythm."""
    scenes = sample(300, np.random.default_rng(0))
    features = audio_features(scenes, {"noise": 0.3}, np.random.default_rng(1))[:, 3:].mean(axis=1)    # all have begun
    basis = np.concatenate([codes(n, len(KINDS), 128) for n in ("sound", "loudness", "rhythm")]
                           + [codes("voice", 128)[None], codes("reverb", 128)[None]])
    solved = np.linalg.lstsq(basis.T, features.T, rcond=None)[0].T                  # (S, 3K + 2)
    heard, loudness, rhythm = (solved[:, i * len(KINDS):(i + 1) * len(KINDS)] for i in range(3))
    assert ((heard > 0.5) == scenes.heard).mean() > 0.999
    assert (np.abs(loudness - scenes.loudness)[scenes.heard] < 0.5).mean() > 0.999
    assert (np.abs(rhythm - scenes.rhythm)[scenes.heard] < 0.5).mean() > 0.999
    assert ((solved[:, -2] > 0.5) == scenes.voice).mean() > 0.999
