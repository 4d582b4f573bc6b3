"""L_ave of a run, read from files, and its references: the skip alone, the last layer alone."""

import json

import pytest
import torch
from toy import SHAPE

from engine.checkpoint import save_checkpoint
from engine.config import compose
from engine.errors import UsageError
from models.rmm_avr.avr import AVR
from models.rmm_avr.released import ReleasedAVR
from scripts.tables.collect import LAST_LAYER, has_avr, last_ave, lowest_ave, skip_ave

WIDTH = 8                    # of SHAPE's D = 16 and, in the layout `time`, of D + 6 D = 112


def saved(folder, layout: str):
    """A checkpoint of an untrained AVR; returns its path and its last layer's weight (C, width)."""
    avr = ReleasedAVR(SHAPE, layout=layout, width=WIDTH)
    weights = {f"method.avr.{name}": value for name, value in avr.state_dict().items()}
    path = folder / "best.pt"
    save_checkpoint(path, {"config": {}, "vocabulary": {}, "spec": {}, "epoch": 1, "model": weights})
    return path, weights[LAST_LAYER].flatten(1)


def config(**options) -> dict:
    return {"method": {"avr": {"enabled": True, "objective": "noise", "input_skip": False, **options}}}


@pytest.mark.parametrize("layout, channels", [("tokens", 16), ("time", 112), ("map", 16)])
def test_no_output_of_the_last_layer_comes_below_the_bound(tmp_path, layout, channels):
    """The best outputs for white noise known beforehand, by least squares, leave 1 - width / C."""
    path, weight = saved(tmp_path, layout)
    bound = lowest_ave(config(layout=layout), path)
    assert bound == pytest.approx(1 - WIDTH / channels)
    noise = torch.randn(channels, 20_000, generator=torch.Generator().manual_seed(0))
    best = weight @ torch.linalg.lstsq(weight, noise).solution
    assert float((noise - best).square().mean()) == pytest.approx(bound, abs=0.01)


def test_there_is_no_bound_where_other_things_reach_the_output(tmp_path):
    path, _ = saved(tmp_path, "tokens")
    assert lowest_ave(config(input_skip=True), path) is None
    assert lowest_ave(config(objective="v"), path) is None
    assert lowest_ave(config(), tmp_path / "gone.pt") is None
    before = config()
    del before["method"]["avr"]["input_skip"]            # a run from before the option, which had no skip
    assert lowest_ave(before, path) == pytest.approx(0.5)


@pytest.mark.parametrize("steps", [5, 10, 20])
def test_what_the_input_skip_alone_reaches(steps):
    """Eq. 7 by drawing, with a U-Net that adds nothing to the skip."""
    avr = {"input_skip": True, "schedule": "ddpm", "steps": steps, "betas": [1e-4, 0.02]}
    net = AVR(SHAPE, width=WIDTH, multipliers=(1,), steps=steps)
    net.diffusion.model.final_conv.weight.data.zero_()
    net.diffusion.model.final_conv.bias.data.zero_()
    torch.manual_seed(0)
    error = net.diffusion.training_error(torch.randn(4000, 7, SHAPE.channels)).mean().detach()
    assert skip_ave(config(**avr)) == pytest.approx(float(error), abs=0.005)
    assert skip_ave(config(**avr | {"objective": "v"})) is None and skip_ave(config()) is None


def test_a_layer_as_wide_as_the_pair_has_the_bound_zero(tmp_path):
    path, _ = saved(tmp_path, "tokens")
    state = torch.load(path, weights_only=True)
    state["model"][LAST_LAYER] = torch.zeros(4, 8, 1)
    save_checkpoint(path, state)
    assert lowest_ave(config(), path) == 0


def test_a_damaged_checkpoint_is_named(tmp_path):
    (tmp_path / "best.pt").write_bytes(b"PK\x03\x04 and no more")
    with pytest.raises(UsageError, match="best.pt is damaged"):
        lowest_ave(config(), tmp_path / "best.pt")


def test_the_last_epoch_is_read():
    lines = [{"epoch": e, "loss": {"total": 9.0, "ave": ave}} for e, ave in ((1, 1.5), (2, 1.25))]
    assert last_ave("".join(json.dumps(line) + "\n" for line in lines)) == 1.25


def test_which_configurations_have_avr():
    assert has_avr(compose(None, ["method=rmm_avr"]))
    assert has_avr(compose(None, ["method=rmm_avr", "rmm.enabled=false"]))
    assert not has_avr(compose(None, ["method=rmm_avr", "avr.enabled=false"]))
    assert not has_avr(compose(None, ["method=plain"])) and not has_avr({"dataset": {"name": "x"}})
