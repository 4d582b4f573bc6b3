"""Raw video to feature files. Adding an extractor is one file and one line here."""

from __future__ import annotations

from importlib import import_module
from pathlib import Path

from dataset.types import DataError

EXTRACTORS = {
    "vggish": "dataset.extract.vggish.VGGishFeatures",
    "res18_14x14": "dataset.extract.resnet.ResNetMaps",
    "clip_vit_b32": "dataset.extract.clip.ClipFrames",
}


def parse_weights(items: list[str]) -> dict[str, Path]:
    """`NAME=PATH` items by extractor name."""
    weights = {}
    for item in items:
        name, separator, path = item.partition("=")
        if name not in EXTRACTORS or not separator:
            raise DataError(f"--weights {item} is not of the form NAME=PATH with NAME one of {', '.join(EXTRACTORS)}")
        weights[name] = Path(path)
    return weights


def build_extractor(name: str, weights, device):
    """`weights`: a local path, None for the library's own download."""
    module, cls = EXTRACTORS[name].rsplit(".", 1)
    return getattr(import_module(module), cls)(weights, device)
