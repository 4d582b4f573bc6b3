"""Time a training step, inference, the loader or feature extraction on made-up input, or what a
whole run costs.

The shapes are those of MUSIC-AVQA: batch 4, T = 10, audio 128, visual 512 x 14 x 14. Needs no data
and prints one JSON object. `run` reads the configured data: its shapes, its number of questions.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import statistics
import sys
import tempfile
import time
from collections import deque
from collections.abc import Callable, Iterable
from dataclasses import replace
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch.utils.data import DataLoader, Dataset
from torch.utils.flop_counter import FlopCounterMode

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

from dataset import build_dataset, make_loader
from dataset.packing import Packing
from dataset.store import FeatureStore
from dataset.types import AUDIO, Batch, DataSpec
from engine import runtime
from engine.config import compose
from engine.errors import positive, require, run_guarded
from engine.optimiser import make_optimiser
from models import build_model
from models.avqa import AVQAModel
from models.objective import total_loss

# The official release: rows 0, 6, ... 54 of VGGish and ResNet-18 features, 93 words, 42 answers, 14
# words a question.
MUSIC_AVQA = DataSpec(segments=10, audio_channels=128, visual_channels=512, grid=(14, 14), words=14, vocabulary=93,
                      answers=42)
CPU = torch.device("cpu")


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=("train-step", "inference", "loader", "extract", "run"))
    parser.add_argument("arguments", nargs="*", metavar="[CONFIG.yaml ...] [key=value ...]",
                        help="as for main_train.py; dataset=music_avqa unless named")
    parser.add_argument("--device", choices=("auto", "cpu", "cuda"), default="auto")
    parser.add_argument("--batch-size", type=positive, default=4, help="questions per step (default 4, as the paper)")
    parser.add_argument("--steps", type=positive, default=5, help="counted steps, after a warm-up (default 5)")
    parser.add_argument("--videos", type=positive, default=8, help="loader: random videos to write (default 8)")
    parser.add_argument("--source", choices=("files", "packed", "whole-files"), default="files",
                        help="loader: memory-mapped files (default), a packed store in float16, or the 11 whole files "
                        "per question that the official loader reads")
    parser.add_argument("--workers", type=int, default=1, help="loader: threads; whole-files: processes (default 1)")
    parser.add_argument("--json", action="store_true", help="one line instead of an indented object")
    return parser.parse_intermixed_args()


def configure(options: argparse.Namespace) -> tuple[dict[str, Any], DataSpec]:
    """The configuration and the shapes: published ones for music_avqa, else those of the files."""
    files = [a for a in options.arguments if "=" not in a]
    default = [] if files else ["dataset=music_avqa"]
    overrides = [a for a in options.arguments if "=" in a]
    config = compose(files, [*default, *overrides, f"runtime.device={options.device}"])
    if config["dataset"]["name"] == "music_avqa" and options.what != "run":
        return config, published_shapes(config["dataset"])
    data = build_dataset(config["dataset"])
    return config, data.spec(data.vocabulary())


def published_shapes(options: dict[str, Any]) -> DataSpec:
    """MUSIC-AVQA's at this stride; CLIP's 50 tokens and its text where `options` ask for them."""
    spec = replace(MUSIC_AVQA, segments=-(-60 // options["stride"]))
    if options["visual_layout"] == "cls_first":
        spec = replace(spec, grid=(50, 1), frame_token=True)
    return replace(spec, text_channels=512) if options["question_features"] else spec


def random_batch(spec: DataSpec, size: int, device: torch.device, negatives: bool = False) -> Batch:
    """Random features >= 0, as after a ReLU; with `negatives`, maps of other videos as well."""
    def shape(*sizes: int) -> torch.Tensor:
        return torch.randn(size, spec.segments, *sizes, device=device).relu()

    def text(*sizes: int) -> torch.Tensor:
        return torch.randint(1, spec.vocabulary, (size, *sizes, spec.words), device=device)

    def encoded(*sizes: int) -> torch.Tensor | None:
        return torch.randn(size, *sizes, spec.text_channels, device=device) if spec.text_channels else None

    index = torch.arange(size, device=device)
    return Batch(
        audio=shape(spec.audio_channels), visual=shape(spec.visual_channels, *spec.grid), words=text(),
        answer=torch.randint(0, spec.choices or spec.answers, (size,), device=device),
        presence=torch.ones(size, spec.segments, 2, dtype=torch.bool, device=device),
        question_id=index, row=index, video=index, choices=text(spec.choices) if spec.choices else None,
        negative_visual=shape(spec.visual_channels, *spec.grid) if negatives else None,
        text_words=encoded(77), text_question=encoded(),
    )


def steps_of(what: str, config: dict[str, Any], spec: DataSpec, accelerator, size: int) -> tuple[AVQAModel, Callable]:
    """The model and a function that runs one step; `inference` lacks audio, the costly case."""
    torch.manual_seed(0)
    model = build_model(spec, config["backbone"], config["method"], frozen=config["train"]["frozen"])
    model = model.to(accelerator.device)
    negatives = what != "inference" and model.backbone.needs_negatives
    batch = random_batch(spec, size, accelerator.device, negatives)
    if config["runtime"]["compile"]:
        model.method.compile_hot_path()
    if what == "inference":
        batch.presence[..., AUDIO] = False
        model.eval()

        def infer() -> None:
            with torch.no_grad(), accelerator.autocast():
                model(batch)
        return model, infer
    optimiser = make_optimiser(model.parameters(), config["train"])
    model.train()

    def train() -> None:
        with accelerator.autocast():
            terms = model(batch).terms
        total = total_loss(terms, model.loss_weights)
        optimiser.zero_grad(set_to_none=True)
        if total.requires_grad:      # as in training: else all is frozen
            total.backward()
        optimiser.step()
    return model, train


def timed(step: Callable, device: torch.device) -> float:
    """Seconds of one step."""
    wait = torch.cuda.synchronize if device.type == "cuda" else lambda: None
    wait()
    started = time.perf_counter()
    step()
    wait()
    return time.perf_counter() - started


def matrix_rate(device: torch.device, dtype: torch.dtype) -> float:
    """Operations per second of a large matrix product, the limit that a step is compared with."""
    size = 8192 if device.type == "cuda" else 2048
    a = torch.randn(size, size, device=device, dtype=dtype)
    return 2 * size ** 3 / statistics.median(timed(lambda: a @ a, device) for _ in range(7))


def peak_memory_mb(device: torch.device) -> float:
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device) / 2 ** 20
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def bench_run(options: argparse.Namespace) -> dict[str, Any]:
    """The hours of all training steps of a run at its own batch size, without the validations."""
    config, _ = configure(options)
    train, questions = config["train"], len(build_dataset(config["dataset"]).asked("train"))
    result = bench_model(argparse.Namespace(**{**vars(options), "batch_size": train["batch_size"]}))
    steps = min(train["epochs"] * -(-questions // train["batch_size"]), train["max_steps"] or sys.maxsize)
    hours = steps * result["seconds_per_step"] / 3600
    return {"epochs": train["epochs"], "steps": steps, "hours": hours, "days": hours / 24, **result}


def bench_model(options: argparse.Namespace) -> dict[str, Any]:
    config, spec = configure(options)
    accelerator = runtime.make_accelerator(config["runtime"])
    device = accelerator.device
    model, step = steps_of(options.what, config, spec, accelerator, options.batch_size)
    flops = None
    if config["runtime"]["compile"]:      # counted on eager operations only; a compiled step hides them
        timed(step, device)
    else:
        with FlopCounterMode(display=False) as counter:
            step()
        flops = counter.get_total_flops()
    timed(step, device)
    seconds = [timed(step, device) for _ in range(options.steps)]
    memory = peak_memory_mb(device)
    rate = matrix_rate(device, torch.bfloat16 if config["runtime"]["bf16"] else torch.float32)
    median = statistics.median(seconds)
    return {
        "what": options.what, "backbone": config["backbone"]["name"], "method": config["method"]["name"],
        "parameters": sum(p.numel() for p in model.parameters()),
        "trained_parameters": sum(p.numel() for p in model.parameters() if p.requires_grad),
        "bf16": config["runtime"]["bf16"], "compiled": config["runtime"]["compile"],
        "batch_size": options.batch_size, "seconds_per_step": median, "all_seconds": seconds,
        "samples_per_second": options.batch_size / median, "peak_memory_mb": memory, "flops_per_step": flops,
        "matrix_flops_per_second": rate, "share_of_matrix_rate": flops and flops / median / rate,
        "bytes_read_per_sample": spec.segments * 4 * (spec.audio_channels + spec.visual_channels * spec.tokens),
        **surroundings(device),
    }


def surroundings(device: torch.device) -> dict[str, Any]:
    libraries = ("torch", "numpy", "denoising-diffusion-pytorch", "accelerate")
    name = torch.cuda.get_device_name(device) if device.type == "cuda" else "cpu"
    return {"threads": torch.get_num_threads(), "device": name, "versions": {n: version(n) for n in libraries}}


def write_videos(root: Path, count: int) -> list[str]:
    """Random features of the real shapes and 64 questions per video, in the MUSIC-AVQA layout."""
    rng = np.random.default_rng(0)
    names = [f"{i:08d}" for i in range(count)]
    for folder, shape in (("vggish", (60, 128)), ("res18_14x14", (60, 512, 14, 14))):
        (root / "feats" / folder).mkdir(parents=True)
        for name in names:
            np.save(root / "feats" / folder / f"{name}.npy", rng.random(shape, dtype=np.float32))
    record = {"type": '["Visual", "Location"]', "question_content": "Where is the performance?", "templ_values": "[]",
              "question_deleted": 0, "anser": "indoor"}
    records = [{"video_id": names[i % count], "question_id": i, **record} for i in range(64 * count)]
    (root / "json_update").mkdir()
    for split in ("train", "val", "test"):
        (root / "json_update" / f"avqa-{split}.json").write_text(json.dumps(records))
    return names


class WholeFiles(Dataset):
    """The official loader's reads for a question: its video's map and one per negative segment."""

    def __init__(self, root: Path, names: list[str]) -> None:
        self.root, self.names = root / "feats", names

    def __len__(self) -> int:
        return len(self.names)

    def __getitem__(self, question: int) -> tuple[torch.Tensor, torch.Tensor]:
        videos = [self.names[(question + i) % len(self.names)] for i in range(11)]
        maps = [np.load(self.root / "res18_14x14" / f"{video}.npy") for video in videos]
        negative = np.stack([maps[i][6 * i - 6] for i in range(1, 11)])
        audio = np.load(self.root / "vggish" / f"{self.names[question]}.npy")[::6]
        return torch.from_numpy(audio), torch.from_numpy(np.stack([maps[0][::6], negative]))


def loader_of(options: argparse.Namespace, root: Path, names: list[str]) -> tuple[Iterable, float]:
    """A loader of one pass over the questions, and the bytes of features it reads per question."""
    whole = sum(os.path.getsize(root / "feats" / folder / f"{names[0]}.npy") * times
                for folder, times in (("res18_14x14", 11), ("vggish", 1)))
    if options.source == "whole-files":
        return DataLoader(WholeFiles(root, names), batch_size=options.batch_size, num_workers=options.workers), whole
    if options.source == "packed":
        for name, folder, dimensions in (("audio", "vggish", 1), ("visual", "res18_14x14", 3)):
            store = FeatureStore(root / "feats" / folder, 6, dimensions)
            deque(Packing(store, root / "feats/packed", name).run(), maxlen=0)
    config = compose(None, ["dataset=music_avqa", f"dataset.root={root}", f"dataset.features={options.source}"])
    data = build_dataset(config["dataset"])
    questions = data.question_set("train", data.vocabulary(), cache=False)
    stride = 1 if options.source == "packed" else 6
    size = sum(store.check(names[0])[::stride].nbytes for store in data.stores.values())
    return make_loader(questions, batch_size=options.batch_size, shuffle=False, workers=options.workers), size


def copy_rate() -> float:
    """Bytes per second of copying a large array, the limit that reading is compared with."""
    a = np.ones(2 ** 28, dtype=np.uint8)
    b = np.ones_like(a)
    return a.nbytes / statistics.median(timed(lambda: np.copyto(b, a), CPU) for _ in range(7))


def bench_loader(options: argparse.Namespace) -> dict[str, Any]:
    """Questions per second of whole passes, files in the page cache; the first is not counted."""
    with tempfile.TemporaryDirectory() as folder:
        names = write_videos(Path(folder), options.videos)
        loader, size = loader_of(options, Path(folder), names)

        def one_pass() -> None:
            deque(loader, maxlen=0)

        one_pass()
        questions = len(names) if options.source == "whole-files" else len(loader.questions)
        seconds = [timed(one_pass, CPU) / questions for _ in range(options.steps)]
    median, rate = statistics.median(seconds), copy_rate()
    return {"what": "loader", "source": options.source, "workers": options.workers, "seconds_per_step": median,
            "all_seconds": seconds, "samples_per_second": 1 / median, "peak_memory_mb": peak_memory_mb(CPU),
            "flops_per_step": 0, "bytes_read_per_sample": size, "copy_bytes_per_second": rate,
            "share_of_copy_bandwidth": size / median / rate, **surroundings(CPU)}


def bench_extract(options: argparse.Namespace) -> dict[str, Any]:
    """Decoding and both networks (random weights) on a minute of 720p at 30 frames/s, apart."""
    require("video", "av")
    from torchvision.models import resnet18  # here, or they would count in the memory of a training step

    from dataset.extract.example import Example, write_video
    from dataset.extract.media import read_clip
    from dataset.extract.resnet import maps_network, normalised
    from dataset.extract.vggish import VGGish, log_mel

    device = runtime.make_accelerator({"device": options.device, "bf16": False}).device
    vggish, resnet = VGGish().to(device).eval(), maps_network(resnet18()).to(device).eval()
    with tempfile.TemporaryDirectory() as folder, torch.inference_mode():
        path = Path(folder) / "clip.mp4"
        write_video(path, Example(seconds=60, fps=30, size=(1280, 720), rate=44_100))
        clip = read_clip(path, list(range(60)))
        sound = torch.from_numpy(clip.sound).to(device)
        parts = {"decode": (lambda: read_clip(path, list(range(60))), CPU),
                 "vggish": (lambda: vggish(log_mel(sound)), device),
                 "resnet": (lambda: resnet(normalised(clip.frames, device)), device)}
        seconds = {name: statistics.median(timed(*part) for _ in range(options.steps)) for name, part in parts.items()}
    return {"what": "extract", **{f"{name}_seconds": value for name, value in seconds.items()},
            "seconds_per_step": sum(seconds.values()), "frames_per_second": 60 / seconds["resnet"],
            "decoded_frames_per_second": 1800 / seconds["decode"], "sound_seconds_per_second": 60 / seconds["vggish"],
            "peak_memory_mb": peak_memory_mb(device), **surroundings(device)}


def main() -> None:
    options = parse()
    others = {"loader": bench_loader, "extract": bench_extract, "run": bench_run}
    result = others.get(options.what, bench_model)(options)
    print(json.dumps(result, indent=None if options.json else 2))


if __name__ == "__main__":
    run_guarded(main)
