"""The fast ways of AVR give the values and gradients of the plain ones."""

import math

import pytest
import torch
from denoising_diffusion_pytorch import Unet1D
from unit.toy_avr import LAYOUTS, WHOLE, loss, make, pair, refine

from models.rmm_avr.diffusion import Denoiser
from models.rmm_avr.fast import FastDenoiser


def assert_loops_agree(**options):
    """The fast loop against the plain one, which a clip at infinity takes: values and gradients."""
    results = []
    for clip in (None, math.inf):
        avr = make(clip=clip, **options)
        audio, visual = (value.requires_grad_() for value in pair())
        refined = refine(avr, audio, visual, torch.tensor([3, 4]))
        sum((r * r.detach().sin()).sum() for r in refined).backward()
        results.append([*refined, audio.grad, visual.grad, *(p.grad for p in avr.parameters())])
    for narrow, plain in zip(*results, strict=True):
        torch.testing.assert_close(narrow, plain, rtol=1e-3, atol=1e-3 * float(plain.detach().abs().max()))


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("objective", ["noise", "v"])
def test_gradient_steps_cut_the_network_of_earlier_steps(layout, objective):
    """The fast loop against the plain one, and zero steps against the linear path alone."""
    assert_loops_agree(layout=layout, gradient_steps=2, objective=objective)
    avr = make(layout=layout, gradient_steps=0, sampler="ddim", input_skip=False)
    x = torch.ones(1, avr.layout.length, avr.layout.channels)
    x.requires_grad_()
    avr.diffusion.reverse(x, 4, None, None, 0).sum().backward()
    gain = float(avr.diffusion.alpha_bar[-1]) ** -0.5
    torch.testing.assert_close(x.grad, torch.full_like(x, gain), rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("multipliers", [(1,), (1, 2), (1, 2, 4)])
@pytest.mark.parametrize("make_denoiser", [Denoiser, FastDenoiser])
@pytest.mark.parametrize("length", [12, 48])                           # shorter and longer than a head is wide
def test_denoiser_is_the_library_network(multipliers, make_denoiser, length):
    torch.manual_seed(0)
    ours, library = make_denoiser(16, 24, multipliers, None), Unet1D(16, channels=24, dim_mults=multipliers)
    library.load_state_dict(ours.state_dict())
    x, step, grad = torch.randn(3, length, 24, requires_grad=True), torch.tensor([0, 4, 9]), torch.randn(3, length, 24)
    y = ours(x, step)
    y.backward(grad)
    twin = x.detach().clone().requires_grad_()
    expected = library(twin.transpose(1, 2), step).transpose(1, 2)
    expected.backward(grad)
    torch.testing.assert_close(y, expected, rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(x.grad, twin.grad, rtol=1e-4, atol=1e-4)
    for (name, mine), theirs in zip(ours.named_parameters(), library.parameters(), strict=True):
        torch.testing.assert_close(mine.grad, theirs.grad, rtol=1e-3, atol=1e-4, msg=name)


@pytest.mark.parametrize("large", [False, True])
def test_computing_again_changes_nothing(large, monkeypatch):
    results = []
    for threshold in (1e18, 0 if large else 1e18):
        monkeypatch.setattr("models.rmm_avr.fast.KEPT_BYTES", threshold)
        avr, values = make(), [value.requires_grad_() for value in pair()]
        sum(r.square().sum() for r in refine(avr, *values, torch.tensor([3, 4]))).backward()
        results.append([*(v.grad for v in values), *(p.grad for p in avr.parameters())])
    assert all(torch.equal(a, b) for a, b in zip(*results, strict=True))


@pytest.mark.parametrize("layout", LAYOUTS)
def test_bfloat16_autocast_stays_close_and_keeps_dtypes(layout):
    avr = make(layout=layout, objective="x0")
    audio, visual = pair()
    exact = refine(avr, audio, visual, torch.tensor([1, 2]))
    with torch.autocast("cpu", dtype=torch.bfloat16):
        value = loss(avr, audio, visual, WHOLE)
        rough = refine(make(layout=layout, objective="x0"), audio, visual.bfloat16(), torch.tensor([1, 2]))
    value.backward()
    assert rough[0].dtype == torch.float32 and rough[1].dtype == torch.bfloat16 and value.dtype == torch.float32
    assert avr.audio_scale.mean.dtype == torch.float32
    assert all(p.grad.dtype == torch.float32 for p in avr.parameters())
    torch.testing.assert_close(rough[0], exact[0], atol=0.1, rtol=0.1)


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("sampler", ["ancestral", "ddim"])
@pytest.mark.parametrize("objective", ["noise", "x0", "v"])
def test_reverse_in_few_channels_is_the_reverse_process(layout, sampler, objective):
    """The clip at infinity takes the plain loop: same values, same gradient of everything."""
    assert_loops_agree(layout=layout, sampler=sampler, objective=objective)
