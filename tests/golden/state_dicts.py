"""Names and shapes of every saved tensor: `python tests/golden/state_dicts.py` writes them.

A changed name breaks checkpoints that have it, unless `engine/legacy.py` translates it.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
if __name__ == "__main__":
    sys.path[:0] = [str(ROOT), str(ROOT / "tests")]

from toy import SPEC

from models import BACKBONES, METHODS, build_model

FILE = Path(__file__).with_name("state_dicts.json")
AVR = {"rmm": {"slots": 3}, "avr": {"width": 8, "steps": 3}}
NARROW = {"rmm_avr": AVR, "released": AVR,
          "conditional_avr": {"rmm": {"slots": 3}, "process": "bridge", "width": 16, "layers": 1}}


def cases() -> dict[str, tuple[dict, dict]]:
    """Every method on AVST, and every other backbone alone."""
    methods = {name: {"name": name, **NARROW.get(name, {})} for name in METHODS}
    of_methods = {f"avst/{name}": ({"name": "avst"}, options) for name, options in methods.items()}
    return of_methods | {f"{name}/plain": ({"name": name}, methods["plain"]) for name in BACKBONES}


def state_dicts(name: str) -> list[str]:
    """`name shape` of every saved tensor of one case."""
    saved = build_model(SPEC, *cases()[name]).state_dict()
    return sorted(f"{key} {'x'.join(map(str, value.shape))}" for key, value in saved.items())


if __name__ == "__main__":
    FILE.write_text(json.dumps({name: state_dicts(name) for name in cases()}, indent=0) + "\n")
