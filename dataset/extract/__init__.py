"""Raw video to feature files. Adding an extractor is one file and one line here."""

from __future__ import annotations

from importlib import import_module
from pathlib import Path

from dataset.extract.weights import RANDOM, Source
from dataset.types import DataError

EXTRACTORS = {
    "vggish": "dataset.extract.vggish.VGGishFeatures",
    "res18_14x14": "dataset.extract.resnet.ResNetMaps",
    "clip_vit_b32": "dataset.extract.clip.ClipFrames",
}


def parse_weights(items: list[str]) -> dict[str, Source]:
    """`NAME=PATH` items by extractor name; the single item `random` is for all."""
    if items == [RANDOM]:
        return dict.fromkeys(EXTRACTORS, RANDOM)
    weights = {}
    for item in items:
        name, separator, path = item.partition("=")
        if name not in EXTRACTORS or not separator:
            raise DataError(f"--weights {item} is not of the form NAME=PATH with NAME one of {', '.join(EXTRACTORS)}, "
                            f"nor {RANDOM} alone")
        weights[name] = Path(path)
    return weights


def build_extractor(name: str, weights: Source, device):
    """`weights`: a local path, None for the library's own download, or RANDOM."""
    module, cls = EXTRACTORS[name].rsplit(".", 1)
    return getattr(import_module(module), cls)(weights, device)
