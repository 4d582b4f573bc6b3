"""Feature files to one memory-mapped array per modality: python scripts/pack_features.py ROOT

Keeps the segments used (every --stride-th row) in float16: MUSIC-AVQA shrinks from 223 GB to 18.6
GB. Every video is read back and compared; the same command continues after an interruption. Train
with dataset.features=packed.
"""

from __future__ import annotations

import argparse
import shutil
import sys
import time
from pathlib import Path
from typing import get_args

from tqdm import tqdm

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

from dataset.files import remove_leftovers
from dataset.lock import alone_in
from dataset.packed import verify
from dataset.packing import Packing
from dataset.store import DAY, FeatureStore, Layout, check_same_clip, note_on_segments
from engine.errors import UsageError, run_guarded


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("root", type=Path)
    parser.add_argument("--stride", type=int, default=6, help="keep every N-th row (default 6, AVST: T = 10)")
    parser.add_argument("--dtype", choices=("float16", "float32"), default="float16")
    parser.add_argument("--audio-folder", default="feats/vggish", help="below ROOT (default feats/vggish)")
    parser.add_argument("--visual-folder", default="feats/res18_14x14", help="below ROOT (default feats/res18_14x14)")
    parser.add_argument("--visual-layout", choices=get_args(Layout), default="map", help="cls_first for CLIP tokens")
    parser.add_argument("--out", type=Path, help="default ROOT/feats/packed")
    parser.add_argument("--dry-run", action="store_true", help="print how large and how long, write nothing")
    parser.add_argument("--verify", action="store_true", help="re-read packed arrays and compare their digests")
    return parser.parse_args()


def plan(packings: list[Packing], out: Path) -> int:
    """Print what will be written; returns the bytes."""
    total, seconds = 0, 0.0
    for packing in packings:
        size = len(packing.videos) * packing.bytes_per_video
        started = time.perf_counter()
        packing.source.read_segments(packing.source.first).astype(packing.dtype)
        seconds += (time.perf_counter() - started) * len(packing.videos)
        print(f"{packing.name}: {len(packing.videos)} videos, {list(packing.shape[1:])} {packing.dtype} each, "
              f"{size / 1e9:.2f} GB to {packing.folder / packing.name}.npy")
        total += size
    existing = next(p for p in (out, *out.parents) if p.exists())
    print(f"{total / 1e9:.2f} GB in all, {shutil.disk_usage(existing).free / 1e9:.1f} GB free; reading takes about "
          f"{max(seconds, 1):.0f} s at the speed of one video")
    return total


def write_arrays(packings: list[Packing], out: Path, needed: int) -> None:
    """Pack `needed` bytes, unless the disk has no room for what is left of them."""
    remove_leftovers(out)
    free = shutil.disk_usage(out).free
    # Blocks, not the size: an interrupted run's file has its full size and few of its blocks.
    held = sum(p.temporary.stat().st_blocks * 512 for p in packings if p.temporary.is_file())
    if needed - held > free:
        raise UsageError(f"{out} has {free / 1e9:.2f} GB free, {(needed - held) / 1e9:.2f} GB are needed; free some, "
                         "give another folder with --out, or use a larger --stride")
    for packing in packings:
        for _ in tqdm(packing.run(), total=len(packing.videos), desc=packing.name, unit="video"):
            pass
        for video, reason in packing.failed.items():
            print(f"left out: {video}: {reason}")


def check_arrays(out: Path) -> None:
    for name in ("audio", "visual"):
        bad = [video for video, good in tqdm(verify(out, name), desc=f"verify {name}", unit="video") if not good]
        if bad:
            raise UsageError(f"{out / name}.npy is damaged at {len(bad)} videos, first {bad[0]}; delete it, pack again")
    print(f"{out}: all digests are right")


def main() -> None:
    options = parse()
    if not 1 <= options.stride <= DAY:
        raise UsageError(f"--stride must be from 1 to {DAY}, the seconds of a day")
    out = options.out or options.root / "feats" / "packed"
    if options.verify:
        check_arrays(out)
        return
    sources = {"audio": FeatureStore(options.root / options.audio_folder, options.stride, 1, skip_damaged=True),
               "visual": FeatureStore(options.root / options.visual_folder, options.stride, 3, skip_damaged=True,
                                      layout=options.visual_layout)}
    check_same_clip(**sources)
    note = note_on_segments(sources["audio"].rows, options.stride, "--stride ")
    if note:
        print(note)
    packings = [Packing(source, out, name, options.dtype) for name, source in sources.items()]
    needed = plan(packings, out)
    if options.dry_run:
        return
    with alone_in(out, "packing into"):
        write_arrays(packings, out, needed)
    print(f"packed: {out}; train with dataset.features=packed" + f" dataset.packed_folder={out}" * bool(options.out))


if __name__ == "__main__":
    run_guarded(main, resumable=True)
