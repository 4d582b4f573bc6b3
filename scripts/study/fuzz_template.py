"""What every fuzzed case starts from: data in every form, runs on them, a table, an interrupted
packing, an exported model, clips and extractors.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
import yaml
from torchvision.models import resnet18
from transformers import CLIPConfig, CLIPModel

from dataset import build_dataset
from dataset.extract.example import Example, write_video
from dataset.extract.vggish import VGGish
from dataset.files import write_json, write_jsonl
from dataset.packing import Packing
from dataset.store import FeatureStore
from dataset.types import AVQA_TYPES
from engine.config import compose
from engine.errors import UsageError
from scripts.study.fuzz_cases import CLIP, RELEASES, SHORT, VIDEOS, Command, extract, train
from scripts.tables.grid import read_grid
from scripts.tables.plan import Plan

Run = Callable[[Command], tuple[int | str, str]]

STREAMS = (("audio", "vggish", 1), ("visual", "res18_14x14", 3))
TABLE = {"title": "Fuzz", "start": None, "seeds": 2, "compare_to": "plain", "rows": {
    "plain": {"label": "Plain", "overrides": ["method=plain"]},
    "ours": {"label": "Ours", "overrides": ["rmm.slots=3", "avr.steps=2", "avr.width=8", "avr.input_skip=false"]}}}


def make_template(folder: Path, run: Run) -> None:
    """Write all of it into the empty `folder`, by the commands themselves where there is one."""
    data = folder / "data"
    built = build_dataset({"name": "synthetic", "root": str(data), **VIDEOS})
    write_json(data / "oracle-test-complete.json", [True] * len(built.questions("test")))
    write_choices(data)
    write_releases(data)
    questions = [{"question": "Is there a cello?"}, {"question": "Who?", "choices": ["a", "b"]}]
    write_jsonl(folder / "asked.jsonl", questions)
    write_tokens(data, [q for split in ("train", "val", "test") for q in built.questions(split)])
    write_json(data / "feats/presence.json", {built.questions("train")[0].video_id: {"audio": 3, "visual": 6}})
    write_extractors(folder)
    (folder / "videos").mkdir()
    for name in "ab":
        write_video(folder / f"videos/{name}.mp4", Example(seconds=1))
    for name, place, dimensions in STREAMS:
        store = FeatureStore(data / "feats" / place, 1, dimensions)
        list(Packing(store, data / "feats/whole", name).run())
        next(Packing(store, data / "feats/packed", name).run())
    shared = ["scripts/export.py", str(folder / "runs/r"), str(folder / "exported")]
    commands = [train(folder, "run.name=r"), shared, train(folder, *CLIP, "run.name=clip"), extract(folder)]
    for command in [*commands, *table_runs(folder)]:
        code, output = run(command)
        if code:
            raise UsageError(f"what cases start from could not be made: {' '.join(command)}: {output}")
    shutil.copy(folder / "runs/r/best.pt", folder / "official.pt")


def write_choices(data: Path) -> None:
    """The synthetic videos as those of AVQA."""
    for name, split in (("train_qa", "train"), ("val_qa", "test")):
        records = json.loads((data / f"json_update/avqa-{split}.json").read_text())
        videos = sorted({record["video_id"] for record in records})
        write_json(data / "json" / f"{name}.json", [
            {"id": i, "video_name": videos[i % len(videos)], "question_text": "What is it?",
             "multi_choice": ["lute", "kazoo", None, 808], "answer": i % 4, "question_type": type_}
            for i, type_ in enumerate([*AVQA_TYPES, *AVQA_TYPES])])


def write_releases(data: Path) -> None:
    """The synthetic questions as other releases write them."""
    (data / "json_v2").mkdir()
    for split, name in (("train", "balance_train"), ("val", "balance_valid"), ("test", "test_balance")):
        records = json.loads((data / f"json_update/avqa-{split}.json").read_text())
        write_json(data / f"json_v2/{name}.json", [{**record, "unmatch_audio": None} for record in records])
    parted = [{**record, "split": "head"} for record in records]
    for _, file in RELEASES[1:]:
        write_json(data / file, parted)


def write_tokens(data: Path, asked: list) -> None:
    """Random features as of a CLIP of 8 channels: 5 tokens a frame, 12 positions a question."""
    rng, texts = np.random.default_rng(0), sorted({" ".join(q.words) for q in asked})
    (data / "feats/clip_vit_b32").mkdir()
    for path in (data / "feats/vggish").glob("*.npy"):
        np.save(data / "feats/clip_vit_b32" / path.name, rng.random((6, 5, 8), dtype=np.float32))
    words = rng.random((len(texts), 12, 8), dtype=np.float32)
    np.savez(data / "feats/clip_words.npz", texts=np.array(texts), words=words,
             question=rng.random((len(texts), 8), dtype=np.float32))


def write_extractors(folder: Path) -> None:
    """A tiny CLIP with its tokenizer; weights of the other two, one number a tensor."""
    torch.manual_seed(0)
    size = {"hidden_size": 16, "intermediate_size": 32, "num_hidden_layers": 1, "num_attention_heads": 2}
    letters = [chr(c) for c in range(97, 123)]
    tokens = [*letters, *(f"{c}</w>" for c in letters), "<|startoftext|>", "<|endoftext|>"]
    ends = {"bos_token_id": len(tokens) - 2, "eos_token_id": len(tokens) - 1}
    text = {**size, **ends, "vocab_size": len(tokens), "max_position_embeddings": 12}
    picture = {**size, "image_size": 224, "patch_size": 112}
    config = CLIPConfig(text_config=text, vision_config=picture, projection_dim=8)
    CLIPModel(config).save_pretrained(folder / "clip")
    write_json(folder / "clip/vocab.json", {token: i for i, token in enumerate(tokens)})
    (folder / "clip/merges.txt").write_text("#version: 0.2\n")
    write_json(folder / "clip/tokenizer_config.json", {"tokenizer_class": "CLIPTokenizer"})
    with torch.device("meta"):
        networks = {"vggish": VGGish(), "res18_14x14": resnet18()}
    for name, network in networks.items():
        state = {key: (torch.rand(()) / 1000).expand(value.shape) for key, value in network.state_dict().items()}
        torch.save(state, folder / f"{name}.pt")


def table_runs(folder: Path) -> list[Command]:
    """Write a table over the data; returns the commands of its runs."""
    places = [f"dataset.root={folder / 'data'}", f"run.root={folder / 'runs'}"]
    layer = compose(None, ["dataset=synthetic", *places, *SHORT,
                           *(f"dataset.{key}={value}" for key, value in VIDEOS.items())])
    kept = {key: layer[key] for key in ("dataset", "train", "evaluate", "runtime", "run")}
    (folder / "base.yaml").write_text(yaml.safe_dump(kept))
    (folder / "table.yaml").write_text(yaml.safe_dump({**TABLE, "rows_from": {"synthetic": str(folder / "base.yaml")}}))
    plan = Plan()
    plan.add_table("table", read_grid(folder / "table.yaml"), None, [])
    return [["main_train.py", *planned.arguments] for planned in plan.runs.values()]
