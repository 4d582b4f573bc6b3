"""Layers of options: YAML texts as plain values, one laid over the other, references filled in."""

from __future__ import annotations

import re
from typing import Any

import yaml
from omegaconf import OmegaConf

from engine.errors import UsageError, shown

REFERENCE = re.compile(r"\$\{([\w.]+)\}")      # ${run.root}; nothing else is filled in, no environment variable
EVENTS = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
LONGEST_TEXT, LONGEST_VALUE, DEEPEST = 100_000, 3_000, 20      # characters and levels


def parse_yaml(text: bytes | str, where: str, aliases: bool = False) -> Any:
    """A YAML text in UTF-8 as plain values; UsageError that opens with `where`."""
    try:
        text = text.decode() if isinstance(text, bytes) else text
        check_extent(text, aliases)
        return OmegaConf.to_container(OmegaConf.from_dotlist([f"value={text}"]))["value"]
    except Exception as error:       # of malformed text the libraries raise nearly anything
        reason = (str(error).splitlines() or [type(error).__name__])[0]
        raise UsageError(f"{where} is not valid YAML: {reason}") from error


def check_extent(text: str, aliases: bool) -> None:
    """ValueError for what a loader would recurse into or expand without bound."""
    if len(text) > LONGEST_TEXT:
        raise ValueError(f"it has {len(text):,} characters, {LONGEST_TEXT:,} are allowed")
    depth = 0
    for event in yaml.parse(text, Loader=EVENTS):
        depth += isinstance(event, yaml.CollectionStartEvent) - isinstance(event, yaml.CollectionEndEvent)
        if depth > DEEPEST:
            raise ValueError(f"it is nested more than {DEEPEST} levels deep")
        if isinstance(event, yaml.AliasEvent) and not aliases:
            raise ValueError(f"it repeats a value by the alias *{event.anchor}; write the value again")
        if isinstance(event, yaml.ScalarEvent) and len(event.value) > LONGEST_VALUE:
            raise ValueError(f"it holds a value of {len(event.value):,} characters, {LONGEST_VALUE:,} are allowed")


def parse_override(item: str) -> tuple[list[str], Any]:
    """`a.b=value` as (["a", "b"], value)."""
    key, separator, text = item.partition("=")
    path = key.split(".")
    if not separator or not all(path) or len(path) > DEEPEST:
        raise UsageError(f"{shown(item)} is not of the form key=value (for example train.epochs=5)")
    return path, parse_yaml(text, f"the value of {shown(item)}")


def overlay(below: Any, above: Any) -> Any:
    """`above`, and of `below` what it does not say otherwise."""
    if not (isinstance(below, dict) and isinstance(above, dict)):
        return above
    return below | {key: overlay(below.get(key), value) for key, value in above.items()}


def fill_in(value: Any, whole: dict[str, Any], key: str = "") -> Any:
    """`value` with its references such as ${run.root} to plain options of `whole`.

    UsageError for what no option can be: unprintable text, bytes, keys that are no text.
    """
    def look_up(reference: re.Match) -> str:
        option = whole
        for part in reference[1].split("."):
            option = option.get(part) if isinstance(option, dict) else None
        return "${" if isinstance(option, dict | list | None) else str(option)

    if isinstance(value, dict) and all(isinstance(name, str) and name.isprintable() for name in value):
        return {name: fill_in(inner, whole, f"{key}.{name}".lstrip(".")) for name, inner in value.items()}
    if isinstance(value, list | tuple):
        return [fill_in(inner, whole, key) for inner in value]
    if isinstance(value, str) and value.isprintable():
        filled = REFERENCE.sub(look_up, value)
        if "${" not in filled:
            return filled
        raise UsageError(f"configuration key {shown(key)} refers to what is no plain option, got {shown(value)}; "
                         "references are such as ${run.root}, environment variables are not read")
    if value is None or isinstance(value, int | float):
        return value
    raise UsageError(f"configuration key {shown(key)} must be plain text or numbers, got {shown(value)}")
