"""Exit 0 if this Python satisfies the given requirement ranges, else list what lacks and exit 1."""

from __future__ import annotations

import sys
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path


def lacking(lines: list[str]) -> list[str]:
    """The requirements among `lines` that the installed packages do not meet."""
    from packaging.requirements import Requirement

    unmet = []
    for line in lines:
        requirement = Requirement(line)
        try:
            installed = version(requirement.name)
        except PackageNotFoundError:
            unmet.append(line)
            continue
        if not requirement.specifier.contains(installed, prereleases=True):
            unmet.append(f"{line} (installed: {installed})")
    return unmet


def main() -> None:
    text = (Path(__file__).parent / "requirements-ranges.txt").read_text()
    lines = [line for line in text.splitlines() if line and not line.startswith("#")]
    try:
        unmet = lacking(lines)
    except ImportError:
        unmet = lines
    if unmet:
        print("; ".join(unmet))
        sys.exit(1)


if __name__ == "__main__":
    main()
