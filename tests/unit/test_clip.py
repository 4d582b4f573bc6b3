"""CLIP features on a tiny network saved on the spot: token-level features agree with the library's
own two outputs."""

import json
import shutil
import sys
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from commands import write_avqa
from safetensors.torch import load_file, save_file
from transformers import CLIPConfig, CLIPModel, CLIPTextModelWithProjection, CLIPVisionModelWithProjection

from dataset.extract.clip import DEVIATION, MEAN, ClipFrames, ClipWords, save_words
from dataset.extract.example import Example, write_video
from dataset.extract.media import Clip
from dataset.question_features import QuestionFeatures
from dataset.store import FeatureStore
from dataset.types import DataError, DataSpec
from engine.answerer import Answerer
from engine.errors import UsageError
from scripts import extract_features


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("clip")
    torch.manual_seed(0)
    size = {"hidden_size": 16, "intermediate_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2,
            "projection_dim": 8}
    letters = [chr(c) for c in range(97, 123)]
    tokens = [*letters, *(f"{c}</w>" for c in letters), "<|startoftext|>", "<|endoftext|>"]
    config = CLIPConfig(
        text_config={**size, "vocab_size": len(tokens), "max_position_embeddings": 12, "bos_token_id": len(tokens) - 2,
                     "eos_token_id": len(tokens) - 1},
        vision_config={**size, "image_size": 224, "patch_size": 112}, projection_dim=8)
    CLIPModel(config).save_pretrained(folder)
    (folder / "vocab.json").write_text(json.dumps({token: i for i, token in enumerate(tokens)}))
    (folder / "merges.txt").write_text("#version: 0.2\n")
    (folder / "tokenizer_config.json").write_text(json.dumps({"tokenizer_class": "CLIPTokenizer"}))
    return folder


def test_token_0_is_the_image_feature_of_the_library(folder):
    extractor = ClipFrames(folder, torch.device("cpu"), batch_size=2)
    frames = np.random.default_rng(0).integers(0, 256, (3, 224, 224, 3), dtype=np.uint8)
    rows = extractor(Clip(frames, np.zeros((0, 16_000), np.float32)))
    assert rows.shape == (3, 5, 8) == (3, *extractor.shape)
    pixels = (torch.from_numpy(frames).permute(0, 3, 1, 2) / 255 - torch.tensor(MEAN).view(3, 1, 1)) \
        / torch.tensor(DEVIATION).view(3, 1, 1)
    with torch.no_grad():
        expected = CLIPVisionModelWithProjection.from_pretrained(folder)(pixels).image_embeds
    torch.testing.assert_close(torch.from_numpy(rows[:, 0]), expected, rtol=1e-4, atol=1e-5)
    assert not np.allclose(rows[:, 1], rows[:, 2])


def test_the_question_is_the_text_feature_of_the_library(folder, tmp_path):
    """And the word at the end of the text, also as saved."""
    words = ClipWords(folder, torch.device("cpu"))
    tokens, question = words(["is a cello", "lute"])
    assert tokens.shape == (2, 12, 8) and question.shape == (2, 8)
    lengths = words.tokenizer(["is a cello", "lute"])["input_ids"]
    library = CLIPTextModelWithProjection.from_pretrained(folder)
    for i, ids in enumerate(lengths):
        with torch.no_grad():
            expected = library(torch.tensor([ids])).text_embeds[0]
        np.testing.assert_allclose(question[i], expected, rtol=1e-4, atol=1e-5)
        np.testing.assert_allclose(tokens[i, len(ids) - 1], question[i], rtol=1e-4, atol=1e-5)
    save_words(tmp_path / "clip_words.npz", ["is a cello", "lute"], words, batch_size=1)
    saved = np.load(tmp_path / "clip_words.npz", allow_pickle=False)
    assert saved["texts"].tolist() == ["is a cello", "lute"]
    np.testing.assert_allclose(saved["question"], question, atol=2e-3)
    np.testing.assert_allclose(saved["words"][0], tokens[0], atol=2e-3)


def test_a_folder_that_is_no_clip_is_named(tmp_path):
    with pytest.raises(DataError, match="CLIP cannot be loaded from"):
        ClipFrames(tmp_path / "none", torch.device("cpu"))


@pytest.mark.parametrize("name, content", [
    ("config.json", "["), ("config.json", "[" * 100_000), ("config.json", "3"), ("config.json", "{}"),
    ("model.safetensors", ""), ("model.safetensors", "text"), ("vocab.json", "[]"), ("vocab.json", "{}"),
    ("merges.txt", "what"), ("tokenizer_config.json", "[1]"), ("tokenizer_config.json", "[" * 100_000),
])
def test_a_folder_of_any_content_is_one_clear_line(folder, tmp_path, name, content):
    damaged = Path(shutil.copytree(folder, tmp_path / "clip"))
    (damaged / name).write_text(content)
    with pytest.raises(DataError, match=f"CLIP .*{damaged}.*; give a folder with its safetensors weights"):
        ClipWords(damaged, torch.device("cpu"))


@pytest.mark.parametrize("change, message", [
    (lambda w, name: w.pop(name), "lacks 1 weights, first 'vision_model.embeddings.class_embedding'"),
    (lambda w, name: w.update({name: w[name][:3].clone()}), "cannot be loaded"),
    (lambda w, name: w.update({name: w[name] * torch.nan}), "gives NaN or infinity, its weights are damaged"),
])
def test_weights_that_are_missing_or_no_numbers_are_refused(folder, tmp_path, change, message):
    damaged = Path(shutil.copytree(folder, tmp_path / "clip"))
    weights = load_file(damaged / "model.safetensors")
    change(weights, "vision_model.embeddings.class_embedding")
    save_file(weights, damaged / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(DataError, match=message):
        ClipFrames(damaged, torch.device("cpu"))


@pytest.fixture
def root(folder, tmp_path, monkeypatch):
    """AVQA's questions and one clip, both read by the command that makes features for training."""
    root = write_avqa(tmp_path / "data", videos=2)
    (root / "videos").mkdir()
    write_video(root / "videos" / "a.mp4", Example(seconds=2, sound=False))
    files = [str(root / "json" / f"{name}_qa.json") for name in ("train", "val")]
    monkeypatch.setattr(sys, "argv", ["extract_features.py", str(root / "videos"), str(root / "feats"), "--features",
                                      "clip_vit_b32", "--weights", f"clip_vit_b32={folder}", "--workers", "0",
                                      "--seconds", "3", "--dtype", "float32", "--device", "cpu", "--question-format",
                                      "avqa", "--questions", *files])
    extract_features.main()
    return root


def test_questions_with_candidates_are_read_once_each(root):
    assert len(QuestionFeatures(root / "feats/clip_words.npz").row) == 8          # one text per question type


def answerer(spec, config, folder) -> Answerer:
    """One with a tiny CLIP in place of a checkpoint and downloaded weights."""
    made = Answerer.__new__(Answerer)
    made.spec, made.config, made.device, made.weights = spec, config, torch.device("cpu"), {"clip_vit_b32": folder}
    made.trained = SimpleNamespace(row_seconds=1)
    made.extractor, made.text_reader = lambda _: ClipFrames(folder, made.device), made.open_text_reader
    return made


def test_an_answer_reads_tokens_and_question_as_training_does(folder, root):
    """Equal to what the data set reads from the files of the command."""
    spec = DataSpec(segments=3, audio_channels=128, visual_channels=8, grid=(5, 1), words=5, vocabulary=11, answers=7,
                    frame_token=True, text_channels=8)
    config = {"dataset": {"name": "music_avqa", "audio_folder": "feats/vggish", "visual_folder": "feats/clip_vit_b32"}}
    made = answerer(spec, config, folder)
    streams = made.read(root / "videos" / "a.mp4")
    assert streams.visual.shape == (3, 8, 5, 1) and streams.presence[:, 1].tolist() == [True, True, False]
    stored = FeatureStore(root / "feats/clip_vit_b32", 1, dimensions=3, layout="cls_first").read_segments("a")
    np.testing.assert_allclose(streams.visual[:2], stored[:2], atol=1e-5)
    read = made.text_features(("which", "is", "it"))
    features = QuestionFeatures(root / "feats/clip_words.npz")
    for name, saved in (("text_words", features.words), ("text_question", features.question)):
        np.testing.assert_allclose(read[name][0], saved[features.row["which is it"]], atol=2e-3)
    assert answerer(replace(spec, text_channels=0), config, folder).text_features(("is",)) == {}
    with pytest.raises(UsageError, match="expects question features of 9 channels, this CLIP gives 8"):
        answerer(replace(spec, text_channels=9), config, folder).text_features(("is",))
