"""Exit 0 if this Python has the requirements of a list, else print what lacks and exit 1.

python scripts/check_environment.py [LIST]      default: requirements/train.txt
"""

from __future__ import annotations

import re
import sys
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
LINE = re.compile(r"^-r (\S+)|^([\w-]+)==\S+ +# (>=\S+)", re.M)


def required(path: Path) -> dict[str, str]:
    """Package -> the range behind its pin, of a list and of those it includes."""
    ranges = {}
    for included, name, wanted in LINE.findall(path.read_text()):
        ranges |= required(path.parent / included) if included else {name: wanted}
    return ranges


def lacking(ranges: dict[str, str]) -> list[str]:
    """What the installed packages do not meet."""
    from packaging.specifiers import SpecifierSet

    unmet = []
    for name, wanted in ranges.items():
        try:
            installed = version(name)
        except PackageNotFoundError:
            unmet.append(f"{name}{wanted}")
            continue
        if not SpecifierSet(wanted).contains(installed, prereleases=True):
            unmet.append(f"{name}{wanted} (installed: {installed})")
    return unmet


def main() -> None:
    ranges = required(ROOT / (sys.argv[1] if len(sys.argv) > 1 else "requirements/train.txt"))
    try:
        unmet = lacking(ranges)
    except ImportError:
        unmet = ["packaging"]
    if unmet:
        print("; ".join(unmet))
        sys.exit(1)


if __name__ == "__main__":
    main()
