"""CLIP features on a tiny network saved on the spot: token-level features agree with the library's own two outputs."""

import json

import numpy as np
import pytest
import torch
from transformers import CLIPConfig, CLIPModel

from dataset.extract.clip import DEVIATION, MEAN, ClipFrames, ClipWords, save_words
from dataset.extract.media import Clip
from dataset.types import DataError


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("clip")
    torch.manual_seed(0)
    size = {"hidden_size": 16, "intermediate_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2}
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
        network = extractor.network
        expected = network.visual_projection(network.vision_model(pixels).pooler_output)
    torch.testing.assert_close(torch.from_numpy(rows[:, 0]), expected, rtol=1e-4, atol=1e-5)
    assert not np.allclose(rows[:, 1], rows[:, 2])


def test_the_question_is_the_word_at_the_end_of_text(folder, tmp_path):
    words = ClipWords(folder, torch.device("cpu"))
    tokens, question = words(["is a cello", "lute"])
    assert tokens.shape == (2, 12, 8) and question.shape == (2, 8)
    lengths = words.tokenizer(["is a cello", "lute"])["input_ids"]
    for i, ids in enumerate(lengths):
        np.testing.assert_allclose(tokens[i, len(ids) - 1], question[i], rtol=1e-4, atol=1e-5)
    save_words(tmp_path / "clip_words.npz", ["is a cello", "lute"], words, batch_size=1)
    saved = np.load(tmp_path / "clip_words.npz", allow_pickle=False)
    assert saved["texts"].tolist() == ["is a cello", "lute"]
    np.testing.assert_allclose(saved["question"], question, atol=2e-3)
    np.testing.assert_allclose(saved["words"][0], tokens[0], atol=2e-3)


def test_a_folder_that_is_no_clip_is_named(tmp_path):
    with pytest.raises(DataError, match="CLIP cannot be loaded from"):
        ClipFrames(tmp_path / "none", torch.device("cpu"))
