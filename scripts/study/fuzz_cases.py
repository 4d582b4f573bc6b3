"""The kinds of fuzzed cases: each damages one thing in a case's folder (`fuzz_template.py`) and
names the command that reads it.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from scripts.study.damage import Damage

Command = list[str]          # a script below the repository's root and its arguments

VIDEOS = {"train_videos": 4, "val_videos": 2, "test_videos": 2, "questions_per_video": 3, "channels": 8}
SHORT = ["train.epochs=1", "train.max_steps=1", "evaluate.scenarios=[complete]", "train.select_by=[complete]",
         "runtime.workers=0", "runtime.device=cpu"]
CLIP = ["dataset.visual_folder=feats/clip_vit_b32", "dataset.visual_layout=cls_first",
        "dataset.question_features=feats/clip_words.npz"]
PACKED = ["dataset.features=packed", "dataset.packed_folder=feats/whole"]
HELD_OUT = 0.5               # of a handful of training videos
RELEASES = (("music_avqa_v2", "json_v2/test_balance.json"), ("music_avqa_r", "json_update/avqa-test-headtail.json"),
            ("fortis_avqa", "json_update/FortisAVQA-test.json"))
AVQA = ["dataset=avqa", f"dataset.holdout={HELD_OUT}"]


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


def export(folder: Path, *extra: str) -> Command:
    return ["scripts/export.py", str(folder / "runs/r"), str(folder / "shared"), *extra]


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
    linear = ["scripts/linear_denoiser.py", str(damage.folder / "runs/r")]
    return damage.rng.choice([test(damage.folder), diagnose(damage.folder), export(damage.folder), linear, start])


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


def releases(damage: Damage) -> Command:
    """The other data sets of the MUSIC-AVQA family."""
    name, file = damage.rng.choice(RELEASES)
    damage.json_file(damage.folder / "data" / file)
    return damage.rng.choice([check, test])(damage.folder, f"dataset={name}")


def exported(damage: Damage) -> Command:
    """A model in the layout of the hub."""
    folder, name = damage.folder, damage.rng.choice(["config.json", "vocabulary.json", "model.safetensors"])
    path = folder / "exported" / name
    damage.json_file(path) if path.suffix == ".json" else damage.any_file(path)
    return ["main_test.py", "--checkpoint", str(path.parent), "--missing", "audio", f"dataset.root={folder / 'data'}"]


def official(damage: Damage) -> Command:
    """A file of the official code, or what is taken for one."""
    damage.checkpoint(damage.folder / "official.pt")
    data = ["--vocabulary", "json_update", f"dataset.root={damage.folder / 'data'}", "dataset.stride=1"]
    return ["scripts/convert_checkpoint.py", str(damage.folder / "official.pt"), str(damage.folder / "runs/o"), *data]


def asked(damage: Damage) -> Command:
    damage.json_file(damage.folder / "asked.jsonl")
    return answer(damage.folder, "--mute", "--questions", str(damage.folder / "asked.jsonl"))


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
        diagnose: ["--split", "--seeds", "--rows", "--table"], report: ["--seeds", "--jobs", "--shard"],
        export: ["--licence"]}
    command = damage.rng.choice(list(options))
    extra = ["--mute"] if command is answer else []
    return command(folder, *extra, damage.rng.choice(options[command]), damage.text())


KINDS: dict[str, Callable[[Damage], Command]] = {kind.__name__: kind for kind in (
    overrides, configurations, tables, checkpoints, continued, exported, official, results, reports, annotations,
    releases, asked, features, presence, questions, manifests, journals, indexes, extractions, extractors, clips,
    words)}
