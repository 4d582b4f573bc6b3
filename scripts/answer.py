"""Ask one question about one video: python scripts/answer.py --checkpoint RUN --video clip.mp4
--question "..."

Prints the most probable answers and which modality was missing. A clip without a sound track or
without a picture is answered too; --mute and --blank take one away from a clip that has both.
"""

from __future__ import annotations

import argparse
import difflib
import sys
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

from engine.errors import UsageError, require, run_guarded

require("video", "av", "transformers")

from dataset import Vocabulary
from dataset.extract import EXTRACTORS, build_extractor, parse_weights
from dataset.extract.media import Clip, MediaError, read_clip
from dataset.store import as_maps
from dataset.types import AUDIO, MODALITIES, VISUAL, Batch, DataSpec
from engine import runtime
from engine.errors import positive
from engine.evaluation import probabilities
from engine.restore import checkpoint_in, load_trained


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--checkpoint", type=Path, required=True, help="run folder or checkpoint")
    parser.add_argument("--video", type=Path, required=True)
    parser.add_argument("--question", required=True)
    parser.add_argument("--mute", action="store_true", help="as if the clip had no sound")
    parser.add_argument("--blank", action="store_true", help="as if the clip had no picture")
    parser.add_argument("--weights", nargs="+", default=[], metavar="NAME=PATH",
                        help="local weights of the extractors, as for extract_features.py")
    parser.add_argument("--top", type=positive, default=5, help="answers to print (default 5)")
    parser.add_argument("--device", choices=("auto", "cpu", "cuda"), default="auto")
    return parser.parse_args()


def extractor_names(config: dict[str, Any]) -> dict[int, str]:
    """The extractor behind each feature folder that the checkpoint was trained on."""
    names = {}
    for modality, key in ((AUDIO, "audio_folder"), (VISUAL, "visual_folder")):
        folder = Path(config["dataset"].get(key, "")).name
        if folder not in EXTRACTORS:
            raise UsageError(f"the checkpoint was trained on dataset={config['dataset']['name']}, whose "
                             f"{MODALITIES[modality]} features cannot be made from a video; train on features of "
                             f"scripts/extract_features.py ({', '.join(EXTRACTORS)})")
        names[modality] = folder
    return names


def split_question(text: str) -> list[str]:
    return text.strip().rstrip("?.!？").split()


def encode_question(text: str, vocabulary: Vocabulary) -> torch.Tensor:
    """(1, L); words that training never saw are named, with the nearest known one."""
    words = split_question(text)
    unknown = [word for word in words if word not in vocabulary.word_index]
    for word in unknown:
        near = difflib.get_close_matches(word, vocabulary.words[1:], n=1, cutoff=0.6)
        hint = f"; did you mean '{near[0]}'?" if near else ""
        print(f"note: '{word}' is outside the vocabulary and is ignored{hint}")
    if len(unknown) == len(words):
        raise UsageError("--question holds no word of the vocabulary the checkpoint was trained on; such words are, "
                         f"for example: {', '.join(vocabulary.words[1:9])}")
    if len(words) > vocabulary.length:
        print(f"note: only the first {vocabulary.length} words are read, the longest question of the training data")
    return torch.tensor([vocabulary.encode_words(tuple(words))])


def features_of(clip: Clip, config: dict[str, Any], spec: DataSpec, weights: dict[str, Path],
                device: torch.device) -> tuple[list[torch.Tensor], torch.Tensor]:
    """[audio (1, T, Ca), visual (1, T, C, H, W)], zeros where absent, and presence (1, T, 2)."""
    wanted = {AUDIO: (spec.audio_channels,), VISUAL: (spec.visual_channels, *spec.grid)}
    presence, streams = torch.zeros(1, spec.segments, 2, dtype=torch.bool), []
    for modality, name in extractor_names(config).items():
        values = np.zeros((spec.segments, *wanted[modality]), dtype=np.float32)
        count = len(clip.sound if modality == AUDIO else clip.frames)
        if count:
            extractor = build_extractor(name, weights.get(name), device)
            features = extractor(clip)
            if modality == VISUAL and spec.frame_token:
                features = as_maps(features, "cls_first")
            if features.shape[1:] != wanted[modality]:
                raise UsageError(f"the checkpoint expects {MODALITIES[modality]} features of shape {wanted[modality]}, "
                                 f"{name} gives {features.shape[1:]}")
            values[:count] = features
            presence[0, :count, modality] = True
        streams.append(torch.from_numpy(values)[None])
    return streams, presence


def text_features(question: str, spec: DataSpec, weights: dict[str, Path], device: torch.device) -> dict[str, Tensor]:
    """What CLIP reads, as the fields of a batch; nothing where the checkpoint needs none."""
    if not spec.text_channels:
        return {}
    from dataset.extract.clip import ClipWords  # here, or every answer would wait for transformers

    words, whole = ClipWords(weights.get("clip_vit_b32"), device)([" ".join(split_question(question))])
    if whole.shape[1] != spec.text_channels:
        raise UsageError(f"the checkpoint expects question features of {spec.text_channels} channels, this CLIP gives "
                         f"{whole.shape[1]}; give its weights with --weights clip_vit_b32=FOLDER")
    return {"text_words": torch.from_numpy(words), "text_question": torch.from_numpy(whole)}


def print_presence(presence: Tensor, method: str, taken: tuple[bool, bool]) -> None:
    """What the clip has of either modality. `taken`: whether --mute or --blank took it away."""
    for modality, name in enumerate(MODALITIES):
        there, total = int(presence[..., modality].sum()), presence.shape[1]
        state = f"{there} of {total} segments present" if there else "missing"
        cause = f" (taken away by --{('mute', 'blank')[modality]})" if taken[modality] else ""
        left = "" if there == total else f"; method={method} answers without {'the rest' if there else 'it'}"
        print(f"{name}: {'present' if there == total else state}{cause}{left}")


def main() -> None:
    options = parse()
    path = checkpoint_in(options.checkpoint)
    trained = load_trained(path)
    config, spec, vocabulary = trained.config, trained.spec, trained.vocabulary
    if spec.choices:
        raise UsageError(f"checkpoint {path} answers multiple choice; this command asks open questions")
    words = encode_question(options.question, vocabulary)
    accelerator = runtime.make_accelerator({"device": options.device, "bf16": False})
    device = accelerator.device
    seconds = [i * config["dataset"].get("stride", 1) for i in range(spec.segments)]
    try:
        clip = read_clip(options.video, seconds)
    except MediaError as error:
        raise UsageError(f"video {options.video}: {error}") from error
    clip = Clip(clip.frames[:0] if options.blank else clip.frames, clip.sound[:0] if options.mute else clip.sound)
    weights = parse_weights(options.weights)
    (audio, visual), presence = features_of(clip, config, spec, weights, device)
    zero = torch.zeros(1, dtype=torch.int64)
    batch = Batch(audio=audio, visual=visual, words=words, answer=zero, presence=presence, question_id=zero, row=zero,
                  video=zero, **text_features(options.question, spec, weights, device))
    shares = probabilities(trained.model.to(device), batch, accelerator)[0]
    print_presence(presence, config["method"]["name"], (options.mute, options.blank))
    best = shares.topk(min(options.top, len(shares)))
    for share, index in zip(best.values.tolist(), best.indices.tolist(), strict=True):
        print(f"{100 * share:5.1f} %  {vocabulary.answers[index]}")


if __name__ == "__main__":
    run_guarded(main)
