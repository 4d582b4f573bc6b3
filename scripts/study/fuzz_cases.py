"""What every fuzzed case starts from, and the kinds of cases: each damages one thing in a case's
folder and names the command that reads it.
"""

from __future__ import annotations

import json
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
from dataset.files import write_json
from dataset.packing import Packing
from dataset.store import FeatureStore
from dataset.types import AVQA_TYPES
from engine.config import compose
from engine.errors import UsageError
from scripts.study.damage import Damage
from scripts.tables.grid import read_grid
from scripts.tables.plan import Plan

Command = list[str]          # a script below the repository's root and its arguments
Run = Callable[[Command], tuple[int | str, str]]

VIDEOS = {"train_videos": 4, "val_videos": 2, "test_videos": 2, "questions_per_video": 3, "channels": 8}
SHORT = ["train.epochs=1", "train.max_steps=1", "evaluate.scenarios=[complete]", "train.select_by=[complete]",
         "runtime.workers=0", "runtime.device=cpu"]
CLIP = ["dataset.visual_folder=feats/clip_vit_b32", "dataset.visual_layout=cls_first",
        "dataset.question_features=feats/clip_words.npz"]
PACKED = ["dataset.features=packed", "dataset.packed_folder=feats/whole"]
HELD_OUT = 0.5               # of a handful of training videos
AVQA = ["dataset=avqa", f"dataset.holdout={HELD_OUT}"]
STREAMS = (("audio", "vggish", 1), ("visual", "res18_14x14", 3))
TABLE = {"title": "Fuzz", "start": None, "seeds": 2, "compare_to": "plain", "rows": {
    "plain": {"label": "Plain", "overrides": ["method=plain"]},
    "ours": {"label": "Ours", "overrides": ["rmm.slots=3", "avr.steps=2", "avr.width=8", "avr.input_skip=false"]}}}


def train(folder: Path, *extra: str) -> Command:
    usual = [] if any(item.startswith("dataset=") for item in extra) else ["dataset=music_avqa", "dataset.stride=1"]
    return ["main_train.py", f"dataset.root={folder / 'data'}", *usual, "method=plain", *extra,
            f"run.root={folder / 'runs'}", *SHORT]


def test(folder: Path, *extra: str) -> Command:
    return ["main_test.py", "--checkpoint", str(folder / "runs/r"), "--missing", "audio", *extra]


def check(folder: Path, *extra: str) -> Command:
    return ["scripts/check_dataset.py", str(folder / "data"), "dataset.stride=1", *extra]


def pack(folder: Path, *extra: str) -> Command:
    return ["scripts/pack_features.py", str(folder / "data"), "--stride", "1", *extra]


def weights(folder: Path) -> list[str]:
    """Of every extractor, so that none are downloaded."""
    return ["--weights", f"clip_vit_b32={folder / 'clip'}",
            *(f"{name}={folder / name}.pt" for name in ("vggish", "res18_14x14"))]


def answer(folder: Path, *extra: str) -> Command:
    return ["scripts/answer.py", "--checkpoint", str(folder / "runs/clip"), "--video", str(folder / "videos/a.mp4"),
            "--question", "Is there a cello?", *extra, *weights(folder)]


def extract(folder: Path, *extra: str) -> Command:
    return ["scripts/extract_features.py", str(folder / "videos"), str(folder / "made"), "--seconds", "2", "--workers",
            "0", "--device", "cpu", *weights(folder), "--features", "clip_vit_b32", *extra]


def report(folder: Path, *extra: str) -> Command:
    table, reports = str(folder / "table.yaml"), str(folder / "reports")
    return ["scripts/reproduce.py", table, "--report-only", "--out", reports, *extra]


def diagnose(folder: Path, *extra: str) -> Command:
    return ["scripts/diagnose.py", str(folder / "runs/r"), *extra]


def benchmark(folder: Path, *extra: str) -> Command:
    data = [f"dataset.{key}={value}" for key, value in VIDEOS.items()]
    return ["scripts/benchmark.py", "inference", *extra, "dataset=synthetic", f"dataset.root={folder / 'data'}", *data,
            "method=plain", "--device", "cpu", "--steps", "1"]


def overrides(damage: Damage) -> Command:
    text, folder = damage.override(), damage.folder
    plan = ["scripts/reproduce.py", str(folder / "table.yaml"), text, "--plan", "--untimed"]
    commands = [train(folder, "method=rmm_avr", text), plan]
    commands += [command(folder, text) for command in (test, check, benchmark, diagnose, report)]
    return damage.rng.choice(commands)


def configurations(damage: Damage) -> Command:
    return damage.rng.choice([train, benchmark])(damage.folder, str(damage.yaml_file()))


def tables(damage: Damage) -> Command:
    path = damage.folder / "table.yaml"
    damage.table_file(path)
    how = damage.rng.choice([["--report-only"], ["--plan", "--untimed"]])
    return ["scripts/reproduce.py", str(path), *how, "--seeds", "1", "--out", str(damage.folder / "reports")]


def checkpoints(damage: Damage) -> Command:
    name = damage.rng.choice(["r", "clip"])
    damage.checkpoint(damage.folder / f"runs/{name}/best.pt")
    if name == "clip":
        return answer(damage.folder, "--mute")
    start = train(damage.folder, "run.name=new", f"train.init={damage.folder / 'runs/r/best.pt'}")
    return damage.rng.choice([test(damage.folder), diagnose(damage.folder), start])


def continued(damage: Damage) -> Command:
    damage.checkpoint(damage.folder / "runs/r/last.pt")
    return [*train(damage.folder, "run.name=r"), "train.epochs=2", "train.max_steps=2"]


def results(damage: Damage) -> Command:
    damage.json_file(damage.folder / "runs/r" / damage.rng.choice(["results.json", "predictions.jsonl"]))
    return test(damage.folder)


def reports(damage: Damage) -> Command:
    """What a table is made from."""
    run = damage.rng.choice(sorted((damage.folder / "runs").glob("synthetic-*")))
    names = ["results.json", "results.json", "predictions.jsonl", "metrics.jsonl", "environment.json"]
    name = damage.rng.choice([*names, "best.pt"])
    damage.checkpoint(run / name) if name == "best.pt" else damage.json_file(run / name)
    table = ["scripts/diagnose.py", "--table", str(damage.folder / "table.yaml"), "--rows", "plain", "--seeds", "1"]
    return damage.rng.choice([report(damage.folder), report(damage.folder), table])


def annotations(damage: Damage) -> Command:
    folder, split = damage.folder, damage.rng.choice(["train", "val", "test"])
    if damage.rng.random() < 0.4:
        damage.json_file(folder / "data/json" / damage.rng.choice(["train_qa.json", "val_qa.json"]))
        return damage.rng.choice([check(folder, *AVQA), train(folder, *AVQA, "run.name=new")])
    path = folder / f"data/json_update/avqa-{split}.json"
    damage.json_file(path)
    words = extract(folder, "--questions", str(path))
    return damage.rng.choice([check(folder), test(folder), train(folder, "run.name=new"), words])


def features(damage: Damage) -> Command:
    files = sorted((damage.folder / "data/feats").glob("[vr]*/*.npy"))
    damage.array_file(damage.rng.choice(files))
    folder = damage.folder
    return damage.rng.choice([check(folder, "--values"), train(folder, "run.name=new"), pack(folder)])


def presence(damage: Damage) -> Command:
    damage.json_file(damage.folder / "data/feats/presence.json")
    return damage.rng.choice([check(damage.folder), test(damage.folder)])


def questions(damage: Damage) -> Command:
    damage.array_file(damage.folder / "data/feats/clip_words.npz")
    return damage.rng.choice([check(damage.folder, *CLIP), train(damage.folder, *CLIP, "run.name=new")])


def manifests(damage: Damage) -> Command:
    damage.json_file(damage.folder / "data" / damage.rng.choice(["manifest.json", "oracle-test-complete.json"]))
    return train(damage.folder, "dataset=synthetic", *(f"dataset.{key}={value}" for key, value in VIDEOS.items()),
                 "run.name=new")


def journals(damage: Damage) -> Command:
    packed = damage.folder / "data/feats/packed"
    damage.any_file(damage.rng.choice(sorted(path for path in packed.iterdir() if path.is_file())))
    return pack(damage.folder)


def indexes(damage: Damage) -> Command:
    name = damage.rng.choice(["audio.json", "visual.json", "audio.npy", "visual.npy"])
    path = damage.folder / "data/feats/whole" / name
    damage.json_file(path) if path.suffix == ".json" else damage.array_file(path)
    verify = pack(damage.folder, "--verify", "--out", str(path.parent))
    return damage.rng.choice([check(damage.folder, *PACKED), train(damage.folder, *PACKED, "run.name=new"), verify])


def extractions(damage: Damage) -> Command:
    damage.json_file(damage.folder / "made" / damage.rng.choice(["manifest.jsonl", "extraction.json", "presence.json"]))
    return extract(damage.folder)


def extractors(damage: Damage) -> Command:
    if damage.rng.random() < 0.2:
        damage.checkpoint(damage.folder / "res18_14x14.pt")
        return extract(damage.folder, "--features", "res18_14x14")
    path = damage.rng.choice(sorted((damage.folder / "clip").iterdir()))
    damage.json_file(path) if path.suffix == ".json" else damage.any_file(path)
    asked = str(damage.folder / "data/json_update/avqa-val.json")
    return damage.rng.choice([extract(damage.folder, "--questions", asked), answer(damage.folder, "--mute")])


def clips(damage: Damage) -> Command:
    damage.any_file(damage.folder / "videos/a.mp4")
    return damage.rng.choice([answer(damage.folder, "--mute"), extract(damage.folder)])


def words(damage: Damage) -> Command:
    """Text of any kind behind an option."""
    folder, options = damage.folder, {
        answer: ["--question", "--top", "--device", "--video", "--checkpoint", "--weights"],
        test: ["--ratio", "--segments", "--missing", "--protocol", "--split", "--checkpoint"],
        pack: ["--stride", "--dtype", "--audio-folder", "--visual-folder", "--visual-layout"],
        extract: ["--seconds", "--stride", "--dtype", "--workers", "--device", "--questions", "--question-format"],
        benchmark: ["--batch-size", "--device", "--workers", "--source"],
        diagnose: ["--split", "--seeds", "--rows", "--table"], report: ["--seeds", "--jobs", "--shard"]}
    command = damage.rng.choice(list(options))
    extra = ["--mute"] if command is answer else []
    return command(folder, *extra, damage.rng.choice(options[command]), damage.text())


KINDS: dict[str, Callable[[Damage], Command]] = {kind.__name__: kind for kind in (
    overrides, configurations, tables, checkpoints, continued, results, reports, annotations, features, presence,
    questions, manifests, journals, indexes, extractions, extractors, clips, words)}


def make_template(folder: Path, run: Run) -> None:
    """Data in every form, runs on them, a table, an interrupted packing, clips and extractors."""
    data = folder / "data"
    built = build_dataset({"name": "synthetic", "root": str(data), **VIDEOS})
    write_json(data / "oracle-test-complete.json", [True] * len(built.questions("test")))
    write_choices(data)
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
    commands = [train(folder, "run.name=r"), train(folder, *CLIP, "run.name=clip"), extract(folder)]
    for command in [*commands, *table_runs(folder)]:
        code, output = run(command)
        if code:
            raise UsageError(f"what cases start from could not be made: {' '.join(command)}: {output}")


def write_choices(data: Path) -> None:
    """The synthetic videos as those of AVQA."""
    for name, split in (("train_qa", "train"), ("val_qa", "test")):
        records = json.loads((data / f"json_update/avqa-{split}.json").read_text())
        videos = sorted({record["video_id"] for record in records})
        write_json(data / "json" / f"{name}.json", [
            {"id": i, "video_name": videos[i % len(videos)], "question_text": "What is it?",
             "multi_choice": ["lute", "kazoo", None, 808], "answer": i % 4, "question_type": type_}
            for i, type_ in enumerate([*AVQA_TYPES, *AVQA_TYPES])])


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
