"""Checkpoints of format 1 load under the names of today and answer as before."""

import pytest
import torch
from toy import SPEC

from engine.checkpoint import load_checkpoint
from engine.config import compose, validate
from engine.legacy import upgrade
from models import build_model

RMM = {"enabled": True, "slots": 3, "addressing": "paper", "similarity": "scaled_dot", "scale": "channels",
       "temperature": 1.0, "loss_reduction": "mean", "detach_target": False, "init_std": 1.0, "question_pairing": "own"}
AVR = {"enabled": True, "layout": "tokens", "width": 8, "multipliers": [1, 2], "steps": 3, "schedule": "sigmoid",
       "objective": "noise", "loss_weight": "none", "clip": None, "normalize": "standardise", "start": "given",
       "start_step": None, "detach_input": True, "sampler": "ancestral", "audio_readout": "corner", "samples": 1}
METHOD = {"refine": "both", "fill": "zeros", "lambda1": 1.0, "lambda2": 1.0, "reconstruction": 0.0, "label_smoothing": 0.0,
          "views": "all"}


def before(**changes):
    """The content of a checkpoint of format 1 with `changes` of the options of METHOD, RMM and AVR.
    """
    method = {"name": "rmm_avr", **METHOD, "rmm": dict(RMM), "avr": dict(AVR)}
    for key, value in changes.items():
        place = next(part for part in (method["rmm"], method["avr"], method) if key in part)
        place[key] = value
    new = upgrade({"model": {}, "config": {"method": method}})["config"]["method"]
    weights = build_model(SPEC, {"name": "avst"}, new).state_dict()
    weights = {name.replace("avr.layout.", "avr."): value for name, value in weights.items()}
    weights["method.fill.seen"] = torch.tensor(True)
    return {"format": 1, "config": {"method": method}, "vocabulary": {}, "spec": {}, "model": weights, "epoch": 1}


@pytest.mark.parametrize("changes,name", [
    ({}, "rmm_avr"),
    ({"refine": "missing_only", "objective": "v", "clip": 3.0, "start": "noised"}, "rmm_avr"),
    ({"layout": "map", "loss_weight": "snr", "normalize": "unnormalise_only", "similarity": "cosine", "objective": "v",
      "reconstruction": 1.0, "detach_input": False}, "released"),
    ({"question_pairing": "time_major"}, "released"),
])
def test_a_checkpoint_of_before_loads(tmp_path, changes, name):
    torch.save(before(**changes), tmp_path / "old.pt")
    state = load_checkpoint(tmp_path / "old.pt")
    method = state["config"]["method"]
    assert method["name"] == name and method["avr"]["input_skip"] is False
    model = build_model(SPEC, {"name": "avst"}, method)
    model.load_state_dict(state["model"], strict=True)
    assert validate_method(method) == method


def validate_method(method: dict) -> dict:
    """The section as the schema of today takes it, without what it adds."""
    whole = compose(None, ["dataset=synthetic", f"method={method['name']}"])
    checked = validate({**whole, "method": method})
    return {key: {k: checked["method"][key][k] for k in value} if isinstance(value, dict) else checked["method"][key]
            for key, value in method.items()}
