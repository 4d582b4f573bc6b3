"""AVR: the diffusion of Eq. 5-7 against plain loops, the standardisation, the layouts, and the denoiser's own pass."""

import math

import pytest
import torch
from denoising_diffusion_pytorch import Unet1D
from torch import nn

from models.avr import AVR
from models.features import FeatureShape
from models.layers.denoiser import Denoiser
from models.layers.diffusion import FeatureDiffusion
from models.layers.standardise import Standardiser

SHAPE = FeatureShape(segments=3, grid=(2, 2), channels=8)
LAYOUTS = ("tokens", "time")


class Stub(nn.Module):
    """A denoiser that can be written down: f(x, t) = weight * x + t / 10."""

    channels, self_condition = 8, False

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


def pair(batch=2, seed=0):
    g = torch.Generator().manual_seed(seed)
    audio = torch.randn(batch, SHAPE.segments, 8, generator=g) * 3 + 1
    visual = torch.randn(batch, SHAPE.segments, 4, 8, generator=g) * 2 - 1
    return audio, visual


def make(**options):
    torch.manual_seed(0)
    return AVR(SHAPE, width=8, **{"steps": 4, **options})


def betas_by_hand(steps):
    """The sigmoid schedule (start -3, end 3), one step at a time."""
    def sigmoid(v):
        return 1 / (1 + math.exp(-v))
    bar = [(sigmoid(3) - sigmoid(6 * t / steps - 3)) / (sigmoid(3) - sigmoid(-3)) for t in range(steps + 1)]
    return [min(1 - bar[t + 1] / bar[t], 0.999) for t in range(steps)]


def posterior_by_hand(betas, t):
    """alpha-bar_t and the posterior's factors of x_0 and x_t and its deviation (Ho et al., 2020, Eq. 7)."""
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
    diffusion = FeatureDiffusion(Stub(), 5, 4, "sigmoid", "noise", "ancestral")
    assert diffusion.betas.tolist() == pytest.approx(betas, rel=1e-5)
    mean, variance = 1.0, 0.0
    for t, beta in enumerate(betas):
        mean, variance = mean * math.sqrt(1 - beta), variance * (1 - beta) + beta
        x = diffusion.q_sample(torch.ones(1, 5, 8), torch.tensor([t]), torch.full((1, 5, 8), 2.0))
        assert x.flatten()[0].item() == pytest.approx(mean + 2 * math.sqrt(variance), rel=1e-4)


@pytest.mark.parametrize("objective", ["noise", "x0", "v"])
@pytest.mark.parametrize("clip", [None, 1.0])
def test_reverse_process_is_equation_6_step_by_step(objective, clip):
    betas, stub = betas_by_hand(4), Stub()
    diffusion = FeatureDiffusion(stub, 5, 4, "sigmoid", objective, "ancestral")
    start, noise = torch.randn(2, 5, 8), {t: torch.randn(2, 5, 8) for t in range(4)}
    x = start
    for t in (3, 2, 1, 0):
        bar, c0, ct, deviation = posterior_by_hand(betas, t)
        clean = clean_by_hand(objective, x, stub(x, torch.full((2,), t)), bar)
        clean = clean if clip is None else clean.clamp(-clip, clip)
        x = c0 * clean + ct * x + (deviation * noise[t] if t else 0)
    torch.testing.assert_close(diffusion.reverse(start, 3, noise.get, clip), x, rtol=1e-4, atol=1e-4)


def test_ddim_is_deterministic_and_keeps_signal_and_noise_apart():
    betas, stub = betas_by_hand(4), Stub()
    diffusion = FeatureDiffusion(stub, 5, 4, "sigmoid", "v", "ddim")
    x = start = torch.randn(2, 5, 8)
    for t in (3, 2, 1, 0):
        bar, before = math.prod(1 - b for b in betas[:t + 1]), math.prod(1 - b for b in betas[:t])
        clean = clean_by_hand("v", x, stub(x, torch.full((2,), t)), bar)
        noise = (x - math.sqrt(bar) * clean) / math.sqrt(1 - bar)
        x = math.sqrt(before) * clean + math.sqrt(1 - before) * noise
    torch.testing.assert_close(diffusion.reverse(start, 3, None, None), x, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("objective", ["noise", "x0", "v"])
@pytest.mark.parametrize("loss_weight", ["none", "snr"])
def test_loss_is_equation_7(objective, loss_weight):
    avr = make(objective=objective, loss_weight=loss_weight, normalize="none")
    avr.diffusion.model = stub = Stub()
    audio, visual = pair()
    present = torch.tensor([[True, True, False], [True, False, True]])
    torch.manual_seed(5)
    value = avr.loss(audio, visual, present)
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
        weight = {"noise": 1, "x0": bar / (1 - bar), "v": bar}[objective] if loss_weight == "snr" else 1
        total += weight * (stub(x[None], step[row, None])[0] - target).square().mean()
    torch.testing.assert_close(value, total / 4, rtol=1e-4, atol=1e-5)


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


def test_statistics_move_in_training_only_and_not_without_normalisation():
    for avr, moves in ((make(), True), (make().eval(), False), (make(normalize="none"), False)):
        avr.loss(*pair(), None)
        assert bool(avr.audio_scale.seen) is moves
        assert bool((avr.visual_scale.mean != 0).any()) is moves


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("multipliers", [(1,), (1, 2), (1, 2, 2)])
def test_layouts_keep_every_value_in_its_place(layout, multipliers):
    avr = make(layout=layout, multipliers=multipliers, objective="x0")
    audio, visual = pair()
    avr.loss(audio, visual, None)
    avr.diffusion.model = Known(avr.join(audio, visual).detach())
    refined = avr.refine(torch.zeros_like(audio), torch.zeros_like(visual), None)
    torch.testing.assert_close(refined, (audio, visual), rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("layout", LAYOUTS)
def test_a_question_refines_alone_as_in_any_batch(layout):
    avr = make(layout=layout, start="noised").eval()
    audio, visual = pair(4)
    ids, order = torch.tensor([7, 11, 3, 100]), torch.tensor([2, 0, 3, 1])
    whole = avr.refine(audio, visual, ids)
    permuted = avr.refine(audio[order], visual[order], ids[order])
    alone = avr.refine(audio[1:2], visual[1:2], ids[1:2])
    for together, mixed, single in zip(whole, permuted, alone, strict=True):
        torch.testing.assert_close(mixed, together[order], rtol=1e-4, atol=1e-3)
        torch.testing.assert_close(single, together[1:2], rtol=1e-4, atol=1e-3)
    other = avr.refine(audio[1:2], visual[1:2], ids[:1])
    assert not torch.allclose(other[0], alone[0])


@pytest.mark.parametrize("layout", LAYOUTS)
def test_gradients_reach_the_pair_and_every_weight(layout):
    avr = make(layout=layout, objective="v")
    audio, visual = (value.requires_grad_() for value in pair())
    refined = avr.refine(audio, visual, None)
    sum(r.square().mean() for r in refined).backward()
    assert audio.grad.abs().min() > 0 and visual.grad.abs().min() > 0
    assert all(p.grad is not None and p.grad.abs().sum() > 0 for p in avr.parameters())


@pytest.mark.parametrize("detach", [True, False])
def test_detach_input_keeps_the_loss_from_the_encoders(detach):
    avr = make(detach_input=detach)
    audio, visual = (value.requires_grad_() for value in pair())
    avr.loss(audio, visual, None).backward()
    assert (audio.grad is None) is detach


@pytest.mark.parametrize("layout", LAYOUTS)
def test_what_absent_entries_hold_does_not_matter(layout):
    present = torch.tensor([[True, True, False], [False, True, True]])
    results = []
    for filling in (0.0, math.nan):
        avr = make(layout=layout, detach_input=False)
        audio, visual = pair()
        audio[~present], visual[~present] = filling, filling
        audio.requires_grad_()
        torch.manual_seed(1)
        loss = avr.loss(audio, visual, present)
        loss.backward()
        results.append([loss, audio.grad, *(p.grad for p in avr.parameters()), avr.visual_scale.variance])
    assert all(bool(a.isfinite().all()) and torch.equal(a, b) for a, b in zip(*results, strict=True))
    nothing = make(layout=layout).loss(*pair(), torch.zeros(2, 3, dtype=torch.bool))
    assert nothing.item() == 0


@pytest.mark.parametrize("objective", ["noise", "x0", "v"])
@pytest.mark.parametrize("clip", [None, 1.0])
@pytest.mark.parametrize("start", ["given", "noised"])
def test_an_untrained_network_stays_finite(objective, clip, start):
    avr = make(steps=10, objective=objective, clip=clip, start=start)
    audio, visual = (value.requires_grad_() for value in pair())
    refined = avr.refine(audio, visual, None)
    sum(r.square().mean() for r in refined).backward()
    assert all(bool(v.isfinite().all()) for v in (*refined, audio.grad, visual.grad))
    if clip is not None:
        assert max(float(r.detach().abs().max()) for r in refined) <= clip * 1.0001      # unit statistics before training


def test_schedules_and_steps_that_cannot_be_are_refused():
    with pytest.raises(ValueError, match="linear.*10.*21"):
        make(steps=10, schedule="linear")
    with pytest.raises(ValueError, match="start_step=4"):
        make(start_step=4)
    assert all(bool((make(steps=21, schedule=s).diffusion.betas < 1).all()) for s in ("linear", "cosine", "sigmoid"))
    early, late = make(start_step=0, clip=1.0), make(clip=1.0)
    assert not torch.allclose(early.refine(*pair(), None)[0], late.refine(*pair(), None)[0])


@pytest.mark.parametrize("multipliers", [(1,), (1, 2), (1, 2, 4)])
def test_denoiser_is_the_library_network(multipliers):
    torch.manual_seed(0)
    ours, library = Denoiser(16, 24, multipliers), Unet1D(16, channels=24, dim_mults=multipliers)
    library.load_state_dict(ours.state_dict())
    x, step, grad = torch.randn(3, 12, 24, requires_grad=True), torch.tensor([0, 4, 9]), torch.randn(3, 12, 24)
    y = ours(x, step)
    y.backward(grad)
    twin = x.detach().clone().requires_grad_()
    expected = library(twin.transpose(1, 2), step).transpose(1, 2)
    expected.backward(grad)
    torch.testing.assert_close(y, expected, rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(x.grad, twin.grad, rtol=1e-4, atol=1e-4)
    for (name, mine), theirs in zip(ours.named_parameters(), library.parameters(), strict=True):
        torch.testing.assert_close(mine.grad, theirs.grad, rtol=1e-3, atol=1e-4, msg=name)


@pytest.mark.parametrize("layout", LAYOUTS)
def test_bfloat16_autocast_stays_close_and_keeps_dtypes(layout):
    avr = make(layout=layout, objective="x0")
    audio, visual = pair()
    exact = avr.refine(audio, visual, torch.tensor([1, 2]))
    with torch.autocast("cpu", dtype=torch.bfloat16):
        loss = avr.loss(audio, visual, None)
        rough = make(layout=layout, objective="x0").refine(audio, visual.bfloat16(), torch.tensor([1, 2]))
    loss.backward()
    assert rough[0].dtype == torch.float32 and rough[1].dtype == torch.bfloat16 and loss.dtype == torch.float32
    assert avr.audio_scale.mean.dtype == torch.float32
    assert all(p.grad.dtype == torch.float32 for p in avr.parameters())
    torch.testing.assert_close(rough[0], exact[0], atol=0.1, rtol=0.1)


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("sampler", ["ancestral", "ddim"])
@pytest.mark.parametrize("objective", ["noise", "x0", "v"])
def test_reverse_in_few_channels_is_the_reverse_process(layout, sampler, objective):
    """The clip at infinity takes the plain loop: the same values, and the same gradient of everything."""
    results = []
    for clip in (None, math.inf):
        avr = make(layout=layout, sampler=sampler, objective=objective, clip=clip)
        audio, visual = (value.requires_grad_() for value in pair())
        refined = avr.refine(audio, visual, torch.tensor([3, 4]))
        sum((r * r.detach().sin()).sum() for r in refined).backward()
        results.append([*refined, audio.grad, visual.grad, *(p.grad for p in avr.parameters())])
    for narrow, plain in zip(*results, strict=True):
        torch.testing.assert_close(narrow, plain, rtol=1e-3, atol=1e-3 * float(plain.detach().abs().max()))


def test_samples_without_noise_are_refused():
    with pytest.raises(ValueError, match="avr.samples=3.*avr.start=noised"):
        AVR(SHAPE, samples=3, sampler="ddim")


@pytest.mark.parametrize("sampler,start", [("ancestral", "given"), ("ddim", "noised")])
def test_samples_are_averaged_at_evaluation_and_differ_from_each_other(sampler, start):
    torch.manual_seed(0)
    avr = AVR(SHAPE, width=8, steps=4, sampler=sampler, start=start, samples=3).eval()
    audio, visual, ids = torch.randn(2, 3, 8), torch.randn(2, 3, 4, 8), torch.tensor([3, 8])
    state = avr.join(audio, visual)
    singles = [avr.sample(state, ids, number) for number in range(3)]
    assert not any(torch.allclose(a, b) for a, b in zip(singles, singles[1:] + singles[:1], strict=True))
    expected = avr.restore(*avr.separate((singles[0] + singles[1] + singles[2]) / 3, 2))
    for found, wanted in zip(avr.refine(audio, visual, ids), expected, strict=True):
        torch.testing.assert_close(found, wanted)
    torch.manual_seed(5)
    trained = avr.refine(audio, visual, None)[0]
    avr.samples = 1
    torch.manual_seed(5)
    assert torch.equal(avr.refine(audio, visual, None)[0], trained)    # training draws one
