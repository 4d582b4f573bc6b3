"""Packing of the tiny data set: 24 videos of six rows."""

from dataset.packing import Packing
from dataset.store import FeatureStore

FOLDERS = {"audio": ("vggish", 1), "visual": ("res18_14x14", 3)}


def packing(root, name, dtype="float16", stride=2):
    folder, dimensions = FOLDERS[name]
    return Packing(FeatureStore(root / "feats" / folder, stride, dimensions), root / "feats/packed", name, dtype)


def pack(root, dtype="float16"):
    for name in FOLDERS:
        assert len(list(packing(root, name, dtype).run())) == 24


def begun(root, videos=7):
    """An audio packing that was interrupted after some videos."""
    killed = packing(root, "audio")
    for done, _ in enumerate(killed.run(), start=1):
        if done == videos:
            break
    return killed
