"""L_ave of a finished run and the value it cannot fall below, from the run folder alone."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from engine.checkpoint import load_checkpoint

LAST_LAYER = "method.avr.diffusion.model.final_conv.weight"      # (C, width, 1), or (C, width, 1, 1) of a map


def has_avr(config: dict[str, Any]) -> bool:
    """Whether a run's resolved configuration has AVR switched on."""
    return bool((config.get("method", {}).get("avr") or {}).get("enabled"))


def last_ave(text: str) -> float:
    """The mean of L_ave over the last epoch, out of metrics.jsonl."""
    return float(json.loads(text.splitlines()[-1])["loss"]["ave"])


def lowest_ave(config: dict[str, Any], checkpoint: Path) -> float | None:
    """1 - width / C for noise prediction by a last layer of `width` channels alone; else None, as without a checkpoint.

    Its outputs at one place of the sequence lie in `width` of C dimensions, and white noise is as large in all of them: a
    network that knew the noise would still leave the rest. A skip of the input, `avr.input_skip`, lifts that bound; runs
    from before that option have none. Only the shape of the layer is read, the network is not built.
    """
    avr = config["method"]["avr"]
    if avr.get("input_skip", False) or avr["objective"] != "noise" or not checkpoint.is_file():
        return None
    channels, width = load_checkpoint(checkpoint, mmap=True)["model"][LAST_LAYER].shape[:2]
    return max(0.0, 1 - width / channels)
