"""Checkpoints of earlier formats load under the names of today and answer as before.

golden/legacy.json has what the code of format 1 (commit f9b0cb6) answered, names and shapes of its
weights, whose values `weight` makes, then as now, and the tensors that training leaves alone.
"""

import json
import math

import pytest
import torch
from golden.official import ROOT, pseudo_random
from toy import SPEC, random_batch

from dataset.types import AUDIO, VISUAL
from engine.checkpoint import load_checkpoint
from engine.config import compose, to_yaml, validate
from engine.errors import UsageError
from engine.legacy import CONSTANT, upgrade
from engine.restore import check_same_run
from models import BACKBONES, build_model

FORMAT_1 = json.loads((ROOT / "tests/golden/legacy.json").read_text())


def weight(name: str, shape: list[int]) -> torch.Tensor:
    values = pseudo_random(name, *shape)
    if name.endswith(".seen"):
        return torch.tensor(True)
    if name.endswith(".variance"):
        return values.square() + 0.5
    return values * (0.1 if len(shape) == 1 else math.prod(shape[1:]) ** -0.5)


def of_format_1(case: str) -> dict:
    """A checkpoint of AVST with a method's options of then."""
    method, constant = (FORMAT_1["cases"][case][key] for key in ("method", "constant"))
    shapes = FORMAT_1["entries"][method["avr"]["layout"] if "avr" in method else method["name"]]
    model = {name: weight(name, shape) for name, shape in shapes.items()}
    model |= {name: torch.tensor(values) for name, values in constant.items()}
    return {"format": 1, "config": {"method": method, "backbone": {"name": "avst"}, "train": {}}, "vocabulary": {},
            "spec": {}, "model": model, "epoch": 1}


@torch.no_grad()
@pytest.mark.parametrize("case,name", [
    ("printed", "rmm_avr"), ("missing_only", "rmm_avr"), ("map", "released"), ("time_major", "released"),
    ("plain", "plain"),
])
def test_a_checkpoint_of_before_answers_as_before(tmp_path, case, name):
    """Questions that are complete, without sound, without picture, without both."""
    torch.save(of_format_1(case), tmp_path / "old.pt")
    state = load_checkpoint(tmp_path / "old.pt")
    method = state["config"]["method"]
    assert method["name"] == name and validate_method(method) == method
    model = build_model(SPEC, {"name": "avst"}, method)
    model.load_state_dict(state["model"], strict=True)
    batch = random_batch(4)
    batch.presence[1, :, AUDIO] = batch.presence[2, :, VISUAL] = batch.presence[3] = False
    logits = model.eval()(batch).logits["complete"]
    torch.testing.assert_close(logits, torch.tensor(FORMAT_1["cases"][case]["logits"]), rtol=1e-3, atol=1e-3)


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


def test_a_saved_schedule_is_left_to_the_options():
    """Format 3 kept it, and another schedule in a later evaluation was mixed with it."""
    network = {"method.avr.diffusion.model.input_skip": torch.ones(4), "method.avr.audio_scale.mean": torch.ones(2)}
    saved = {"method.avr.diffusion.betas": torch.ones(4), "method.avr.diffusion.loss_weight": torch.ones(4), **network}
    assert upgrade({"format": 3, "model": saved})["model"] == network


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
