"""Raw videos to feature files: python scripts/extract_features.py VIDEOS OUT

VIDEOS is a folder with one file per video, named VIDEO_ID.mp4 (or another container); sound alone,
such as VIDEO_ID.wav, is a video without a picture. OUT, normally ROOT/feats of a data set, receives
OUT/vggish/VIDEO_ID.npy and OUT/res18_14x14/VIDEO_ID.npy, a manifest with digests, and presence.json
with what a video lacks. The same command continues after an interruption and retries the videos
that failed.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

from engine.errors import UsageError, require, run_guarded

require("video", "av", "transformers")

from dataset import avqa, music_avqa_r, music_avqa_v2, questions
from dataset.extract import EXTRACTORS, build_extractor, parse_weights
from dataset.extract.pipeline import Settings, Summary, extract, find_videos
from dataset.extract.weights import RANDOM
from dataset.extracted import WARNING
from dataset.store import DAY
from engine import runtime

WORKERS = 256                # far more than any machine has use for
QUESTION_FORMATS = {"music_avqa": questions.MusicAVQARecord, "music_avqa_v2": music_avqa_v2.V2Record,
                    "music_avqa_r": music_avqa_r.RephrasedRecord, "avqa": avqa.AVQARecord}


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("videos", type=Path)
    parser.add_argument("out", type=Path)
    parser.add_argument("--features", nargs="+", choices=EXTRACTORS, default=["vggish", "res18_14x14"],
                        help="default: vggish res18_14x14, those of AVST")
    parser.add_argument("--questions", nargs="+", type=Path, default=[], metavar="FILE",
                        help="annotation files whose questions CLIP shall read, to OUT/clip_words.npz")
    parser.add_argument("--question-format", choices=QUESTION_FORMATS, default="music_avqa",
                        help="which data set's annotation files these are (default music_avqa)")
    parser.add_argument("--weights", nargs="+", default=[], metavar="NAME=PATH",
                        help="local weights, such as vggish=vggish-10086976.pth; without, they are downloaded once. "
                        "random: random weights, to try the way before the download")
    parser.add_argument("--seconds", type=int, default=60, help="length used of a video (default 60; AVQA: 10)")
    parser.add_argument("--stride", type=int, default=1, help="keep every N-th second (default 1, as the official "
                        "files; 6 is all that AVST reads: then train with dataset.stride=1)")
    parser.add_argument("--dtype", choices=("float16", "float32"), default="float16",
                        help="float16 (default) takes half the disk; the official files are float32")
    parser.add_argument("--workers", type=int, default=2, help="decoding processes (default 2)")
    parser.add_argument("--device", choices=("auto", "cpu", "cuda"), default="auto")
    return parser.parse_args()


def print_summary(summary: Summary, settings: Settings) -> None:
    print(f"{summary.done} videos extracted, {summary.skipped} were there already")
    print_lengths(summary, settings)
    total_rows = len(settings.chosen)
    if summary.partly:
        print(f"{len(summary.partly)} lack something, recorded as absent in presence.json (rows of {total_rows}):")
        for name, rows in sorted(summary.partly.items()):
            print(f"  {name}: audio {rows['audio']}, visual {rows['visual']}")
    if summary.failed:
        print(f"{len(summary.failed)} could not be used and have no features:")
        for name, reason in sorted(summary.failed.items()):
            print(f"  {name}: {reason}")


def print_lengths(summary: Summary, settings: Settings) -> None:
    """How much of longer videos is dropped, and whether all are shorter than the files."""
    if summary.longer:
        lengths = summary.longer.values()
        dropped = sum(lengths) - len(lengths) * settings.seconds
        print(f"{len(lengths)} of these are longer than the {settings.seconds} s that are used (--seconds): "
              f"{dropped:.0f} of their {sum(lengths):.0f} s are dropped, the longest has {max(lengths):.0f} s")
    if 0 < summary.longest < len(settings.chosen):
        print(f"note: no video has more than {summary.longest} of the {len(settings.chosen)} rows of a file; "
              f"--seconds {summary.longest * settings.stride}, into another folder, wastes no disk and no segments")


def main() -> None:
    options = parse()
    if not (1 <= options.seconds <= DAY and 1 <= options.stride <= DAY and 0 <= options.workers <= WORKERS):
        raise UsageError(f"--seconds and --stride must be from 1 to {DAY}, a day, and --workers from 0 to {WORKERS}")
    videos, weights = find_videos(options.videos), parse_weights(options.weights)
    device = runtime.make_accelerator({"device": options.device, "bf16": False}).device
    extractors = [build_extractor(name, weights.get(name), device) for name in options.features]
    if options.questions:
        from dataset.extract.clip import ClipWords, save_words
        schema = QUESTION_FORMATS[options.question_format]
        asked = [q for file in options.questions for q in questions.read_questions(file, schema)]
        texts = sorted({" ".join(q.words) for q in asked})
        save_words(options.out / "clip_words.npz", texts, ClipWords(weights.get("clip_vit_b32"), device))
        print(f"{len(texts)} different questions read by CLIP: {options.out / 'clip_words.npz'}")
    settings = Settings(options.seconds, options.stride, options.dtype, RANDOM if RANDOM in weights.values() else None)
    summary = extract(videos, options.out, extractors, settings, options.workers)
    print_summary(summary, settings)
    if settings.weights:
        print(WARNING)
    if not summary.done and not summary.skipped:
        raise UsageError(f"none of the {len(videos)} videos in {options.videos} can be used; the reasons stand above")


if __name__ == "__main__":
    run_guarded(main, resumable=True)
