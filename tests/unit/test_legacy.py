"""Checkpoints of earlier formats load under the names of today and answer as before."""

import pytest
import torch
from toy import SPEC

from engine.checkpoint import load_checkpoint
from engine.config import compose, to_yaml, validate
from engine.errors import UsageError
from engine.legacy import CONSTANT, upgrade
from engine.restore import check_same_run
from models import BACKBONES, build_model

RMM = {"enabled": True, "slots": 3, "addressing": "paper", "similarity": "scaled_dot", "scale": "channels",
       "temperature": 1.0, "loss_reduction": "mean", "detach_target": False, "init_std": 1.0, "question_pairing": "own"}
AVR = {"enabled": True, "layout": "tokens", "width": 8, "multipliers": [1, 2], "steps": 3, "schedule": "sigmoid",
       "objective": "noise", "loss_weight": "none", "clip": None, "normalize": "standardise", "start": "given",
       "start_step": None, "detach_input": True, "sampler": "ancestral", "audio_readout": "corner", "samples": 1}
METHOD = {"refine": "both", "fill": "zeros", "lambda1": 1.0, "lambda2": 1.0, "reconstruction": 0.0,
          "label_smoothing": 0.0, "views": "all"}


def before(**changes):
    """A checkpoint of format 1 with `changes` of the options of METHOD, RMM and AVR."""
    method = {"name": "rmm_avr", **METHOD, "rmm": dict(RMM), "avr": dict(AVR)}
    for key, value in changes.items():
        place = next(part for part in (method["rmm"], method["avr"], method) if key in part)
        place[key] = value
    config = {"method": method, "backbone": {"name": "avst"}, "train": {}}
    new = upgrade({"format": 1, "model": {}, "config": config})["config"]["method"]
    weights = build_model(SPEC, {"name": "avst"}, new).state_dict()
    weights = {name.replace("avr.layout.", "avr."): value for name, value in weights.items()}
    weights["method.fill.seen"] = torch.tensor(True)
    return {"format": 1, "config": config, "vocabulary": {}, "spec": {}, "model": weights, "epoch": 1}


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


def of_format_2(**method):
    model = {"backbone.x": torch.zeros(1), "method.fill.mean_audio": torch.zeros(16)}
    return {"format": 2, "model": model, "config": {"method": method, "backbone": {"name": "avst"}, "train": {}}}


def test_an_option_that_is_gone_is_dropped_at_its_value():
    state = upgrade(of_format_2(name="prompts", views="all", tokens=16, level="input", label_smoothing=0.2))
    assert state["config"]["method"] == {"name": "prompts", "views": "all"}
    assert state["config"]["train"] == {"label_smoothing": 0.2} and list(state["model"]) == ["backbone.x"]
    assert "method.fill.mean_audio" in upgrade(of_format_2(name="plain", fill="mean"))["model"]


@pytest.mark.parametrize("method,option", [({"name": "prompts", "tokens": 8}, "method.tokens=8"),
                                           ({"name": "rmm_avr", "avr": {"detach_input": False}},
                                            "method.avr.detach_input=False")])
def test_another_value_of_such_an_option_is_refused(method, option):
    with pytest.raises(UsageError, match=f"^{option} is no option any more, it is always"):
        upgrade(of_format_2(**method))


@pytest.mark.parametrize("name", BACKBONES)
def test_a_run_with_constants_for_options_loads(name, tmp_path):
    """Its configuration, and its checkpoint, which may be resumed."""
    config = compose(None, ["dataset=synthetic", f"backbone={name}"])
    older = {**config, "backbone": {**config["backbone"], **CONSTANT[name]}}
    (tmp_path / "config.yaml").write_text(to_yaml(older))
    assert compose(str(tmp_path / "config.yaml"), []) == config
    model = build_model(SPEC, config["backbone"], config["method"])
    state = {"format": 2, "config": older, "vocabulary": {}, "spec": {}, "model": model.state_dict(), "epoch": 1}
    torch.save(state, tmp_path / "last.pt")
    state = load_checkpoint(tmp_path / "last.pt")
    check_same_run(state["config"], config, tmp_path / "last.pt")
    build_model(SPEC, state["config"]["backbone"], config["method"]).load_state_dict(state["model"])


@pytest.mark.parametrize("name", BACKBONES)
def test_a_run_with_other_constants_is_refused(name, tmp_path):
    for key in CONSTANT[name]:
        message = rf"backbone.{key}=99 is no option any more, it is always .*; leave it out"
        with pytest.raises(UsageError, match=f"^{message}"):
            compose(None, ["dataset=synthetic", f"backbone={name}", f"backbone.{key}=99"])
        config = {**compose(None, ["dataset=synthetic"]), "backbone": {"name": name, key: 99}}
        state = {"format": 2, "config": config, "vocabulary": {}, "spec": {}, "model": {}, "epoch": 1}
        torch.save(state, tmp_path / "x.pt")
        with pytest.raises(UsageError, match=f"^checkpoint .*x.pt cannot be used: {message}"):
            load_checkpoint(tmp_path / "x.pt")


def validate_method(method: dict) -> dict:
    """The section as the schema of today takes it, without what it adds."""
    whole = compose(None, ["dataset=synthetic", f"method={method['name']}"])
    checked = validate({**whole, "method": method})
    return {key: {k: checked["method"][key][k] for k in value} if isinstance(value, dict) else checked["method"][key]
            for key, value in method.items()}
