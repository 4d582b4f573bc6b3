"""Render a small data set of real media files: python scripts/make_example_videos.py OUT

OUT/videos holds short MP4 files (H.264, AAC) with drawn instruments and synthesised sound, and with
--odd the cases that break pipelines (no sound, no picture, cut off, empty, ...); OUT/json_update
holds questions on them in the MUSIC-AVQA format. docs/data.md goes from here to an answer.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

from engine.errors import UsageError, require, run_guarded

require("video", "av")

from dataset.extract.example import write_example_dataset, write_odd


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("out", type=Path)
    parser.add_argument("--videos", type=int, default=24, help="number of videos (default 24)")
    parser.add_argument("--seconds", type=float, default=10.0, help="length of each (default 10)")
    parser.add_argument("--odd", action="store_true", help="also write the odd cases, to OUT/odd")
    options = parser.parse_args()
    if not (4 <= options.videos <= 10_000 and 1 <= options.seconds <= 3600):
        raise UsageError("--videos must be from 4 to 10000 and --seconds from 1 to 3600")
    return options


def main() -> None:
    options = parse()
    write_example_dataset(options.out, options.videos, options.seconds)
    if options.odd:
        write_odd(options.out / "odd")
    print(f"written: {options.out}/videos ({options.videos} files), {options.out}/json_update"
          + (f", {options.out}/odd" if options.odd else ""))


if __name__ == "__main__":
    run_guarded(main)
