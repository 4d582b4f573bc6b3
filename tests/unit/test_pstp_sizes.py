"""PSTP-Net: its sizes and options, and CLIP features from files to logits."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from commands import ROOT, write_dataset
from toy import unweighted
from unit.toy_pstp import CLIP, MAP, batch_of, make

from dataset import make_loader
from dataset.music_avqa import MusicAVQA
from dataset.types import DataSpec
from engine.config import compose
from models import build_model
from models.backbones.pstp_net import Sizes, fitted, segment_count
from models.errors import OptionError


def test_the_frame_of_a_plain_map_is_the_mean_of_its_tokens():
    model, batch = make(MAP), batch_of(2, MAP)
    frame, patches = model.split(model.encode(batch).visual)
    assert model.frame is None and patches.shape == (2, 8, 6, 16)
    torch.testing.assert_close(frame, model.patch(batch.visual.mean(dim=(3, 4))))


def test_parameters_at_the_published_size():
    """Parameters of the run configuration at the published size."""
    config = compose(str(ROOT / "configs/music_avqa_clip.yaml"), [])
    assert (config["dataset"]["stride"], config["dataset"]["visual_layout"]) == (1, "cls_first")
    spec = DataSpec(segments=60, audio_channels=128, visual_channels=512, grid=(50, 1), words=14, vocabulary=93,
                    answers=42, frame_token=True, text_channels=512)
    linear, norm = 512 * 512 + 512, 2 * 512
    projections = 128 * 512 + 512 + 4 * linear                              # audio; frame, patch, word, question
    selections = (1024 * 512 + 512) + 2 * (2 * linear - 512)                # pooled pair; queries and keys, twice
    guided, whole, fusion = 4 * linear + 2 * linear + norm, 8 * linear + 2 * linear + 2 * norm, 6 * linear + 2 * norm
    model = build_model(spec, config["backbone"], {"name": "plain"})
    assert sum(p.numel() for p in model.backbone.parameters()) == projections + selections + guided + whole + fusion


@pytest.mark.parametrize("seconds, segs", [(60, 12), (10, 5), (6, 3), (4, 2), (7, 7), (22, 11), (2, 2), (1, 1)])
def test_segments_divide_the_seconds(seconds, segs):
    """Segments are a divisor with the published ones at their lengths."""
    assert segment_count(seconds) == segs


@pytest.mark.parametrize("segments, grid, frame_token, expected", [
    (60, (50, 1), True, (12, 2, 25)), (10, (50, 1), True, (5, 2, 25)), (10, (14, 14), False, (5, 2, 100)),
    (6, (2, 3), False, (3, 1, 3)), (1, (1, 1), False, (1, 1, 1)),
])
def test_derived_sizes(segments, grid, frame_token, expected):
    spec = replace(CLIP, segments=segments, grid=grid, frame_token=frame_token)
    assert fitted(spec) == Sizes(*expected)


def test_a_width_that_the_heads_do_not_divide_is_named():
    with pytest.raises(OptionError, match="have 14 channels, and attention of 4 heads needs a multiple of 4"):
        build_model(replace(CLIP, visual_channels=14), {"name": "pstp_net"}, {"name": "plain"})


def test_clip_text_is_refused_where_the_data_have_none():
    with pytest.raises(OptionError, match="backbone.text=clip needs question features: set dataset.question_features"):
        build_model(replace(CLIP, text_channels=0), {"name": "pstp_net", "text": "clip"}, {"name": "plain"})


def test_candidates_are_read_by_their_own_lstm():
    """Candidates are read by an lstm of their own beside a clip question."""
    spec = replace(CLIP, choices=4)
    model = build_model(spec, {"name": "pstp_net", "text": "clip"}, {"name": "plain"}).train()
    batch = replace(batch_of(5, spec), text_words=torch.randn(5, 9, 10), text_question=torch.randn(5, 10))
    unweighted(model, batch).backward()
    assert all(p.grad is not None and p.grad.abs().sum() > 0 for p in model.parameters())
    model.eval()
    before = model(batch).logits["complete"]
    assert torch.equal(before, model(replace(batch, words=batch.words.roll(1, 0))).logits["complete"])
    assert not torch.equal(before, model(replace(batch, choices=batch.choices.roll(1, 1))).logits["complete"])


def test_clip_features_from_files_to_logits(tmp_path):
    root, rng = write_dataset(tmp_path / "data", seconds=8), np.random.default_rng(1)
    (root / "feats/clip").mkdir()
    for path in (root / "feats/vggish").glob("*.npy"):
        np.save(root / "feats/clip" / path.name, rng.standard_normal((8, 7, 16)).astype(np.float16))
    asked = MusicAVQA(root=str(root))
    texts = sorted({" ".join(q.words) for split in ("train", "val", "test") for q in asked.questions(split)})
    words = rng.standard_normal((len(texts), 9, 10)).astype(np.float16)
    np.savez(root / "feats/text.npz", texts=np.array(texts), words=words, question=words[:, 3] * 2)
    data = MusicAVQA(root=str(root), stride=1, visual_folder="feats/clip", visual_layout="cls_first",
                     question_features="feats/text.npz")
    vocabulary = data.vocabulary()
    spec = data.spec(vocabulary)
    assert (spec.grid, spec.visual_channels, spec.frame_token, spec.text_channels) == ((7, 1), 16, True, 10)
    questions = data.question_set("test", vocabulary)
    batch = next(iter(make_loader(questions, batch_size=5, shuffle=False))).to("cpu")
    for i, question in enumerate(questions.questions[:5]):
        stored = np.load(root / f"feats/clip/{question.video_id}.npy").astype(np.float32)
        np.testing.assert_array_equal(batch.visual[i, :, :, :, 0].transpose(1, 2), stored)
        row = texts.index(" ".join(question.words))
        np.testing.assert_array_equal(batch.text_words[i], words[row])
        np.testing.assert_array_equal(batch.text_question[i], words[row, 3] * 2)
    model = build_model(spec, {"name": "pstp_net", "text": "clip"}, {"name": "plain"}).eval()
    encoded = model.backbone.encode(batch).visual[0, 3]
    torch.testing.assert_close(encoded[0], model.backbone.frame(batch.visual[0, 3, :, 0, 0]))
    torch.testing.assert_close(encoded[4], model.backbone.patch(batch.visual[0, 3, :, 4, 0]))
    logits = model(batch).logits["complete"]
    assert logits.shape == (5, spec.answers) and torch.isfinite(logits).all()
    other = replace(batch, text_words=batch.text_words + 1)
    assert not torch.allclose(logits, model(other).logits["complete"])
