"""Raw video to feature files. Adding an extractor is one file and one line here."""

from __future__ import annotations

from importlib import import_module

EXTRACTORS = {
    "vggish": "dataset.extract.vggish.VGGishFeatures",
    "res18_14x14": "dataset.extract.resnet.ResNetMaps",
    "clip_vit_b32": "dataset.extract.clip.ClipFrames",
}


def build_extractor(name: str, weights, device):
    """`weights`: a local path, None for the library's own download."""
    module, cls = EXTRACTORS[name].rsplit(".", 1)
    return getattr(import_module(module), cls)(weights, device)
