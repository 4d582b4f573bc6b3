"""The defaults of all options, as they were when runs were last given their digests
(scripts/tables/plan.py).

A digest leaves out options at their default, so a default that changes would make earlier runs pass
for today's. Write defaults.json again after adding an option, or after changing a default and
raising VERSION:

  python tests/golden/defaults.py
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[2]
STORED = Path(__file__).with_name("defaults.json")
sys.path.insert(0, str(ROOT))

from pydantic_core import PydanticUndefined, to_jsonable_python

from dataset.files import write_json
from engine.config import REGISTRIES, Train, schema
from scripts.tables.plan import VERSION


def of_model(model: Any) -> dict[str, Any]:
    """Option -> default, sections as nested mappings; options without a default are left out."""
    defaults = {}
    for key, option in model.model_fields.items():
        if hasattr(option.annotation, "model_fields"):
            defaults[key] = of_model(option.annotation)
        elif option.default is not PydanticUndefined:
            defaults[key] = to_jsonable_python(option.default)
    return defaults


def current() -> dict[str, Any]:
    """Component -> option -> default, of all that are registered, and of the training."""
    names = {kind: next(iter(registry)) for kind, registry in REGISTRIES.items()}
    components = [(kind, name) for kind, registry in REGISTRIES.items() for name in registry]
    return {"train": of_model(Train)} | {
        f"{kind}.{name}": of_model(schema(**{**names, kind: name}).model_fields[kind].annotation)
        for kind, name in components
    }


def changed(stored: dict[str, Any], now: dict[str, Any], place: str = "") -> list[str]:
    """Options whose default is another one than was stored."""
    differences = []
    for key in stored.keys() & now.keys():
        if isinstance(stored[key], dict) and isinstance(now[key], dict):
            differences += changed(stored[key], now[key], f"{place}{key}.")
        elif stored[key] != now[key]:
            differences.append(f"{place}{key}: {stored[key]!r}, now {now[key]!r}")
    return sorted(differences)


def main() -> None:
    stored = json.loads(STORED.read_text()) if STORED.is_file() else {"version": None, "defaults": {}}
    differences = changed(stored["defaults"], current())
    if differences and stored["version"] == VERSION:
        sys.exit("raise VERSION in scripts/tables/plan.py first; other defaults than before: " + "; ".join(differences))
    write_json(STORED, {"version": VERSION, "defaults": current()})


if __name__ == "__main__":
    main()
