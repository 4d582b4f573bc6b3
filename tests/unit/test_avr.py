"""AVR: the diffusion of Eq. 5-7 against plain loops, the standardisation and the layouts."""

import math
from typing import get_args

import pytest
import torch
from denoising_diffusion_pytorch import GaussianDiffusion1D
from torch import nn
from unit.toy_avr import LAYOUTS, WHOLE, loss, make, pair, refine

from models.errors import OptionError
from models.layers.standardise import Standardiser
from models.rmm_avr.diffusion import FeatureDiffusion, Schedule, best_linear_guess, make_betas
from models.rmm_avr.fast import FastDenoiser, FastDiffusion


class Stub(nn.Module):
    """A denoiser that can be written down: f(x, t) = weight * x + t / 10."""

    channels, self_condition = 8, False                # what the library's process asks for

    def __init__(self):
        super().__init__()
        self.weight = nn.Parameter(torch.tensor(0.3))

    def forward(self, x, step):
        return self.weight * x + step.reshape(-1, 1, 1) / 10


class Known(nn.Module):
    """A denoiser that always answers the same clean sequence."""

    def __init__(self, clean):
        super().__init__()
        self.clean = clean

    def forward(self, x, step):
        return self.clean + 0 * x


def process(objective="noise", sampler="ancestral", schedule="sigmoid", stub=None):
    return FeatureDiffusion(stub or Stub(), make_betas(schedule, 4), objective, sampler)


def betas_by_hand(steps):
    """The sigmoid schedule (start -3, end 3), one step at a time."""
    def sigmoid(v):
        return 1 / (1 + math.exp(-v))
    bar = [(sigmoid(3) - sigmoid(6 * t / steps - 3)) / (sigmoid(3) - sigmoid(-3)) for t in range(steps + 1)]
    return [min(1 - bar[t + 1] / bar[t], 0.999) for t in range(steps)]


def posterior_by_hand(betas, t):
    """alpha-bar_t, the posterior's factors of x_0 and x_t, its deviation (Ho et al., Eq. 7)."""
    bar = math.prod(1 - b for b in betas[:t + 1])
    before = math.prod(1 - b for b in betas[:t])
    c0 = math.sqrt(before) * betas[t] / (1 - bar)
    ct = math.sqrt(1 - betas[t]) * (1 - before) / (1 - bar)
    return bar, c0, ct, math.sqrt(betas[t] * (1 - before) / (1 - bar))


def clean_by_hand(objective, x, output, bar):
    if objective == "noise":
        return (x - math.sqrt(1 - bar) * output) / math.sqrt(bar)
    return output if objective == "x0" else math.sqrt(bar) * x - math.sqrt(1 - bar) * output


def test_forward_process_is_equation_5_step_by_step():
    betas = betas_by_hand(4)
    diffusion = process()
    mean, variance = 1.0, 0.0
    for t, beta in enumerate(betas):
        mean, variance = mean * math.sqrt(1 - beta), variance * (1 - beta) + beta
        x = diffusion.noised(torch.ones(1, 5, 8), torch.tensor([t]), torch.full((1, 5, 8), 2.0))
        assert x.flatten()[0].item() == pytest.approx(mean + 2 * math.sqrt(variance), rel=1e-4)


@pytest.mark.parametrize("objective", ["noise", "x0", "v"])
@pytest.mark.parametrize("clip", [None, 1.0])
def test_reverse_process_is_equation_6_step_by_step(objective, clip):
    betas, stub = betas_by_hand(4), Stub()
    diffusion = process(objective, stub=stub)
    start, noise = torch.randn(2, 5, 8), {t: torch.randn(2, 5, 8) for t in range(4)}
    x = start
    for t in (3, 2, 1, 0):
        bar, c0, ct, deviation = posterior_by_hand(betas, t)
        clean = clean_by_hand(objective, x, stub(x, torch.full((2,), t)), bar)
        clean = clean if clip is None else clean.clamp(-clip, clip)
        x = c0 * clean + ct * x + (deviation * noise[t] if t else 0)
    torch.testing.assert_close(diffusion.reverse(start, 4, noise.get, clip), x, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("objective", ["noise", "x0", "v"])
def test_noising_and_a_reverse_step_are_the_library_s(objective):
    stub, ours = Stub(), process(objective, schedule="cosine")
    library = GaussianDiffusion1D(stub, seq_length=5, timesteps=4, objective=f"pred_{objective}",
                                  beta_schedule="cosine", auto_normalize=False, channel_first=False)
    x, noise, nothing = torch.randn(2, 5, 8), torch.randn(2, 5, 8), torch.zeros(2, 5, 8)
    for step in (torch.tensor([0, 2]), torch.tensor([3, 1])):
        torch.testing.assert_close(ours.noised(x, step, noise), library.q_sample(x, step, noise))
    for high in (1, 3):                                # the steps below do nothing
        mean = library.p_mean_variance(x, torch.full((2,), high), clip_denoised=False)[0]
        one = process(objective, schedule="cosine", stub=stub)
        one.table = [(0, 0, 0, 1, 0)] * high + [one.table[high]]
        torch.testing.assert_close(one.reverse(x, high + 1, lambda _: nothing), mean, rtol=1e-4, atol=1e-4)


def test_ddim_is_deterministic_and_keeps_signal_and_noise_apart():
    betas, stub = betas_by_hand(4), Stub()
    diffusion = process("v", "ddim", stub=stub)
    x = start = torch.randn(2, 5, 8)
    for t in (3, 2, 1, 0):
        bar, before = math.prod(1 - b for b in betas[:t + 1]), math.prod(1 - b for b in betas[:t])
        clean = clean_by_hand("v", x, stub(x, torch.full((2,), t)), bar)
        noise = (x - math.sqrt(bar) * clean) / math.sqrt(1 - bar)
        x = math.sqrt(before) * clean + math.sqrt(1 - before) * noise
    torch.testing.assert_close(diffusion.reverse(start, 4, None, None), x, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("objective", ["noise", "x0", "v"])
def test_loss_is_equation_7(objective):
    avr = make(objective=objective, schedule="sigmoid").eval()         # in evaluation mode nothing is standardised yet
    avr.diffusion.model = stub = Stub()
    audio, visual = pair()
    present = torch.tensor([[True, True, False], [True, False, True]])
    torch.manual_seed(5)
    value = loss(avr, audio, visual, present)
    torch.manual_seed(5)
    step, noise = torch.randint(0, 4, (6,)), torch.randn(6, 6, 8)
    total, betas = 0.0, betas_by_hand(4)
    for row in range(6):
        if not present.flatten()[row]:
            continue
        t = int(step[row])
        bar = math.prod(1 - b for b in betas[:t + 1])
        clean = torch.cat([audio.flatten(0, 1)[row, None], visual.flatten(0, 1)[row]])      # (5, 8)
        z = noise[row, :5]
        x = math.sqrt(bar) * clean + math.sqrt(1 - bar) * z
        target = {"noise": z, "x0": clean, "v": math.sqrt(bar) * z - math.sqrt(1 - bar) * clean}[objective]
        total += (stub(x[None], step[row, None])[0] - target).square().mean()
    torch.testing.assert_close(value, total / 4, rtol=1e-4, atol=1e-5)


def test_ddpm_betas_are_those_of_ho_et_al():
    """Three steps by hand: 1e-4, 0.01005, 0.02; at ten, alpha-bar_T is 0.9037."""
    assert make_betas("ddpm", 3).tolist() == pytest.approx([1e-4, 0.01005, 0.02])
    products = [0.9999, 0.9999 * 0.98995, 0.9999 * 0.98995 * 0.98]
    assert make(steps=3).diffusion.alpha_bar.tolist() == pytest.approx(products)
    by_hand = math.prod(1 - (1e-4 + t * (0.02 - 1e-4) / 9) for t in range(10))
    assert float(make(steps=10).diffusion.alpha_bar[-1]) == pytest.approx(by_hand, rel=1e-6)
    assert by_hand == pytest.approx(0.9037, abs=1e-4)


@pytest.mark.parametrize("schedule,gain", [("ddpm", 1.05), ("sigmoid", 159.0)])
def test_gain_of_an_unnoised_start_without_a_network(schedule, gain):
    """What a network that answers zero makes of a start of one: 1 / sqrt(alpha-bar_T)."""
    avr = make(steps=10, schedule=schedule, sampler="ddim", input_skip=False)
    for p in avr.diffusion.model.parameters():
        torch.nn.init.zeros_(p)
    restored = avr.diffusion.reverse(torch.ones(1, 6, 8), 10, None)
    assert float(restored[0, 0, 0]) == pytest.approx(float(avr.diffusion.alpha_bar[-1]) ** -0.5, rel=1e-3)
    assert float(restored[0, 0, 0]) == pytest.approx(gain, rel=0.01)


@pytest.mark.parametrize("objective", ["noise", "x0", "v"])
def test_the_best_linear_guess_is_that_of_least_squares(objective):
    torch.manual_seed(0)
    betas = make_betas("ddpm", 4, (1e-4, 0.5))
    clean, noise = torch.randn(2, 200_000, dtype=torch.float64)
    bar = torch.cumprod(1 - betas, 0)[:, None]
    x = bar.sqrt() * clean + (1 - bar).sqrt() * noise                              # (T, samples)
    target = {"noise": noise.expand_as(x), "x0": clean.expand_as(x), "v": bar.sqrt() * noise - (1 - bar).sqrt() * clean}
    fitted = (x * target[objective]).sum(1) / x.square().sum(1)
    torch.testing.assert_close(best_linear_guess(betas, objective).double(), fitted, atol=0.01, rtol=0)


def test_the_input_skip_takes_the_bound_from_the_loss():
    """Features on a line in 40 channels: noise off it is known, but a width of 8 tells a fifth."""
    errors = {}
    for skip in (True, False):
        torch.manual_seed(0)
        betas = make_betas("ddpm", 4, (0.2, 0.3))
        model = FastDenoiser(8, 40, (1,), best_linear_guess(betas, "noise") if skip else None)
        diffusion = FastDiffusion(model, betas, "noise", "ancestral")
        optimiser = torch.optim.Adam(model.parameters(), lr=0.02)
        for _ in range(60):
            clean = torch.randn(32, 4, 1).expand(-1, -1, 40)
            loss = diffusion.training_error(clean).mean()
            optimiser.zero_grad()
            loss.backward()
            optimiser.step()
        errors[skip] = float(loss.detach())
    assert errors[True] < 0.7 and errors[False] > 1 - 8 / 40


def test_statistics_are_exact_first_then_running_and_restored():
    scale = Standardiser(8)
    values = torch.randn(4, 3, 8) * torch.arange(1.0, 9) + 5
    present = torch.ones(4, 3, dtype=torch.bool)
    present[0] = False
    values[0] = math.nan
    scale.observe(values, present)
    unit = scale.standardise(values[1:])
    torch.testing.assert_close(unit.flatten(0, 1).mean(0), torch.zeros(8), atol=1e-5, rtol=0)
    torch.testing.assert_close(unit.flatten(0, 1).std(0, correction=0), torch.ones(8), atol=1e-4, rtol=0)
    torch.testing.assert_close(scale.restore(unit), values[1:])
    before = scale.mean.clone()
    scale.observe(values + 100, present)
    torch.testing.assert_close(scale.mean - before, torch.ones(8), atol=1e-3, rtol=1e-3)
    copy = Standardiser(8)
    copy.load_state_dict(scale.state_dict())
    assert torch.equal(copy.standardise(values[1:]), scale.standardise(values[1:]))


def test_statistics_move_in_training_only():
    for avr, moves in ((make(), True), (make().eval(), False)):
        loss(avr, *pair(), WHOLE)
        assert bool(avr.audio_scale.seen) is moves
        assert bool((avr.visual_scale.mean != 0).any()) is moves


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("multipliers", [(1,), (1, 2), (1, 2, 2)])
def test_layouts_keep_every_value_in_its_place(layout, multipliers):
    avr = make(layout=layout, multipliers=multipliers, objective="x0")
    audio, visual = pair()
    loss(avr, audio, visual, WHOLE)
    avr.diffusion.model = Known(avr.join(audio, visual).detach())
    refined = refine(avr, torch.zeros_like(audio), torch.zeros_like(visual), None)
    torch.testing.assert_close(refined, (audio, visual), rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("layout", LAYOUTS)
def test_a_question_refines_alone_as_in_any_batch(layout):
    avr = make(layout=layout, start="noised").eval()
    audio, visual = pair(4)
    ids, order = torch.tensor([7, 11, 3, 100]), torch.tensor([2, 0, 3, 1])
    whole = refine(avr, audio, visual, ids)
    permuted = refine(avr, audio[order], visual[order], ids[order])
    alone = refine(avr, audio[1:2], visual[1:2], ids[1:2])
    for together, mixed, single in zip(whole, permuted, alone, strict=True):
        torch.testing.assert_close(mixed, together[order], rtol=1e-4, atol=1e-3)
        torch.testing.assert_close(single, together[1:2], rtol=1e-4, atol=1e-3)
    other = refine(avr, audio[1:2], visual[1:2], ids[:1])
    assert not torch.allclose(other[0], alone[0])


@pytest.mark.parametrize("layout", LAYOUTS)
def test_gradients_reach_the_pair_and_every_weight(layout):
    avr = make(layout=layout, objective="v")
    audio, visual = (value.requires_grad_() for value in pair())
    refined = refine(avr, audio, visual, None)
    sum(r.square().mean() for r in refined).backward()
    assert audio.grad.abs().min() > 0 and visual.grad.abs().min() > 0
    assert all(p.grad is not None and p.grad.abs().sum() > 0 for p in avr.parameters())


@pytest.mark.parametrize("trains", [True, False])
def test_whether_the_loss_trains_the_encoders(trains):
    avr = make()
    avr.trains_encoder = trains
    audio, visual = (value.requires_grad_() for value in pair())
    loss(avr, audio, visual, WHOLE).backward()
    assert (audio.grad is not None) is trains


@pytest.mark.parametrize("layout", LAYOUTS)
def test_what_absent_entries_hold_does_not_matter(layout):
    present = torch.tensor([[True, True, False], [False, True, True]])
    results = []
    for filling in (0.0, math.nan):
        avr = make(layout=layout)
        avr.trains_encoder = True
        audio, visual = pair()
        audio[~present], visual[~present] = filling, filling
        audio.requires_grad_()
        torch.manual_seed(1)
        value = loss(avr, audio, visual, present)
        value.backward()
        results.append([value, audio.grad, *(p.grad for p in avr.parameters()), avr.visual_scale.variance])
    assert all(bool(a.isfinite().all()) and torch.equal(a, b) for a, b in zip(*results, strict=True))
    nothing = loss(make(layout=layout), *pair(), torch.zeros(2, 3, dtype=torch.bool))
    assert nothing.item() == 0


@pytest.mark.parametrize("objective", ["noise", "x0", "v"])
@pytest.mark.parametrize("clip", [None, 1.0])
@pytest.mark.parametrize("start", ["given", "noised"])
def test_an_untrained_network_stays_finite(objective, clip, start):
    avr = make(steps=10, objective=objective, clip=clip, start=start)
    audio, visual = (value.requires_grad_() for value in pair())
    refined = refine(avr, audio, visual, None)
    sum(r.square().mean() for r in refined).backward()
    assert all(bool(v.isfinite().all()) for v in (*refined, audio.grad, visual.grad))
    if clip is not None:
        assert max(float(r.detach().abs().max()) for r in refined) <= clip * 1.0001   # unit statistics before training


@pytest.mark.parametrize("options,message", [
    ({"betas": (1e-4, 1.0)}, "avr.betas reach 1"), ({"start_step": 4}, "avr.start_step=4"),
    ({"gradient_steps": 5}, "avr.gradient_steps=5"),
])
def test_a_process_that_cannot_be_is_refused(options, message):
    with pytest.raises(OptionError, match=message):
        make(**options)


def test_the_reverse_process_starts_where_it_is_told():
    assert all(bool((make_betas(s, 4) < 1).all()) for s in get_args(Schedule))
    early, late = make(start_step=0), make()
    assert not torch.allclose(refine(early, *pair(), None)[0], refine(late, *pair(), None)[0])
