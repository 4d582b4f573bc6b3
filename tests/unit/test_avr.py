"""AVR against Eq. 5-7 in plain loops, with denoisers simple enough to work by hand."""

import math

import pytest
import torch
from conftest import SHAPE, random_features
from torch import nn

from models.avr import AVR
from models.features import FeatureShape
from models.layers.diffusion import FeatureDiffusion


class Scaled(nn.Module):
    """A stub denoiser: a fixed multiple of its input, told apart by the step."""

    channels, self_condition = 3, False

    def forward(self, x, t, **_):
        return x * (0.1 + 0.05 * t[:, None, None])


def schedule(steps: int) -> list[float]:
    """The sigmoid schedule of the library's 2D process (start -3, end 3, tau 1), written out."""
    def sigmoid(value):
        return 1 / (1 + math.exp(-value))
    def bar(u):
        return (-sigmoid(6 * u - 3) + sigmoid(3)) / (sigmoid(3) - sigmoid(-3))
    return [min(1 - bar((i + 1) / steps) / bar(i / steps), 0.999) for i in range(steps)]


def alpha_bars(betas: list[float]) -> list[float]:
    bars = []
    for beta in betas:
        bars.append((bars[-1] if bars else 1.0) * (1 - beta))
    return bars


def test_forward_process_is_equation_5_applied_step_by_step():
    """Variance and mean of x_t after t single steps of Eq. 5 equal those q_sample uses."""
    betas, diffusion = schedule(10), FeatureDiffusion(Scaled(), 4, 10, "sigmoid", "noise")
    mean, variance = 1.0, 0.0
    for t, beta in enumerate(betas):
        mean, variance = math.sqrt(1 - beta) * mean, (1 - beta) * variance + beta
        x = diffusion.q_sample(torch.ones(1, 3, 4), torch.tensor([t]), torch.zeros(1, 3, 4))
        noise = diffusion.q_sample(torch.zeros(1, 3, 4), torch.tensor([t]), torch.ones(1, 3, 4))
        assert float(x[0, 0, 0]) == pytest.approx(mean, rel=1e-4)
        assert float(noise[0, 0, 0]) == pytest.approx(math.sqrt(variance), rel=1e-4)


@pytest.mark.parametrize("objective", ["noise", "x0", "v"])
def test_reverse_process_equals_a_plain_loop(objective):
    """Ho et al. 2020, Eq. 7 and 11: posterior mean from the predicted clean feature, fixed posterior variance."""
    betas = schedule(6)
    bars = alpha_bars(betas)
    diffusion = FeatureDiffusion(Scaled(), 4, 6, "sigmoid", objective)
    g = torch.Generator().manual_seed(0)
    x = torch.randn(2, 3, 4, generator=g)
    expected = x.double()
    for t in reversed(range(6)):
        noise = torch.randn(2, 3, 4, generator=g) if t else None
        x = diffusion.reverse_step(x, t, noise, clip=None)
        bar, before = bars[t], bars[t - 1] if t else 1.0
        out = expected * (0.1 + 0.05 * t)
        clean = {"noise": (expected - math.sqrt(1 - bar) * out) / math.sqrt(bar), "x0": out,
                 "v": math.sqrt(bar) * expected - math.sqrt(1 - bar) * out}[objective]
        mean = (math.sqrt(before) * betas[t] * clean + math.sqrt(1 - betas[t]) * (1 - before) * expected) / (1 - bar)
        variance = betas[t] * (1 - before) / (1 - bar)
        expected = mean if noise is None else mean + math.sqrt(variance) * noise.double()
    torch.testing.assert_close(x.double(), expected, atol=1e-3, rtol=1e-3)


def test_loss_is_the_mean_squared_error_of_the_noise():
    """Eq. 7 with a denoiser that answers zero: the loss is the mean square of the noise drawn."""
    torch.manual_seed(0)
    avr, features = AVR(SHAPE, width=8, steps=4), random_features(3)
    with torch.no_grad():
        avr.diffusion.model.final_conv.weight.zero_()
        avr.diffusion.model.final_conv.bias.zero_()
    present = torch.ones(3, 4, dtype=torch.bool)
    torch.manual_seed(5)
    loss = avr.loss(features.audio, features.visual, present)
    torch.manual_seed(5)
    avr.diffusion.random_times(12)
    noise = torch.randn(12, 16, 8)
    assert float(loss.detach()) == pytest.approx(float(noise.square().mean()), rel=1e-5)


@pytest.mark.parametrize("layout", ["tokens", "time"])
@pytest.mark.parametrize("shape", [SHAPE, FeatureShape(5, (1, 2), 8)])
def test_join_and_separate_put_every_value_back(layout, shape):
    avr, features = AVR(shape, width=8, layout=layout).train(), random_features(3, shape=shape)
    avr.loss(features.audio * 3 + 1, features.visual * 5 - 2, torch.ones(3, shape.segments, dtype=torch.bool))
    audio, visual = avr.separate(avr.join(features.audio, features.visual), 3)
    torch.testing.assert_close(audio, features.audio, atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(visual, features.visual, atol=1e-5, rtol=1e-5)


def test_standardised_features_have_zero_mean_and_unit_deviation_per_channel():
    avr, features = AVR(SHAPE, width=8).train(), random_features(6)
    audio, visual = features.audio * 3 + 1, features.visual * 5 - 2
    avr.loss(audio, visual, torch.ones(6, 4, dtype=torch.bool))
    pair = avr.join(audio, visual)[..., :7]                            # (S, D, 1+N), padding cut
    for part in (pair[..., :1], pair[..., 1:]):
        torch.testing.assert_close(part.mean((0, 2)), torch.zeros(16), atol=1e-4, rtol=0)
        torch.testing.assert_close(part.transpose(1, 2).flatten(0, 1).std(0), torch.ones(16), atol=1e-3, rtol=0)


def test_statistics_and_loss_see_present_segments_only():
    features, present = random_features(3), torch.ones(3, 4, dtype=torch.bool)
    present[0, 2:] = False
    losses, means = [], []
    for value in (0.0, 1e5):
        torch.manual_seed(0)
        avr = AVR(SHAPE, width=8).train()
        audio = features.audio.clone()
        audio[0, 2:] = value
        losses.append(float(avr.loss(audio, features.visual, present).detach()))
        means.append(avr.audio_scale.mean.clone())
    assert losses[0] == losses[1] and torch.equal(*means)


@pytest.mark.parametrize("layout", ["tokens", "time"])
@pytest.mark.parametrize("start", ["given", "noised"])
def test_refinement_depends_on_the_question_not_on_the_batch(layout, start):
    torch.manual_seed(0)
    avr, f = AVR(SHAPE, width=8, steps=4, layout=layout, start=start, clip=3.0).eval(), random_features(3)
    together = avr.refine(f.audio, f.visual, f.question_id)
    order = torch.tensor([2, 0, 1])
    permuted = avr.refine(f.audio[order], f.visual[order], f.question_id[order])
    alone = [avr.refine(f.audio[i:i + 1], f.visual[i:i + 1], f.question_id[i:i + 1]) for i in range(3)]
    for part in range(2):
        torch.testing.assert_close(together[part][order], permuted[part], atol=1e-4, rtol=1e-4)
        torch.testing.assert_close(together[part], torch.cat([a[part] for a in alone]), atol=1e-4, rtol=1e-4)


def test_refinement_carries_a_gradient_to_the_pair_and_to_the_weights():
    avr, f = AVR(SHAPE, width=8, steps=4), random_features(2)
    audio = f.audio.requires_grad_()
    sum(part.square().sum() for part in avr.refine(audio, f.visual, None)).backward()
    assert float(audio.grad.abs().sum()) > 0
    assert all(float(p.grad.abs().sum()) > 0 for p in avr.diffusion.model.parameters())


def test_clip_bounds_the_result_in_standard_deviations():
    torch.manual_seed(0)
    f = random_features(2)
    for clip in (None, 2.0):
        avr = AVR(SHAPE, width=8, steps=10, clip=clip)
        largest = max(float(part.detach().abs().max()) for part in avr.refine(f.audio, f.visual, None))
        assert math.isfinite(largest) and (clip is None or largest <= clip + 1e-5)


def test_linear_schedule_is_refused_where_beta_exceeds_one():
    with pytest.raises(ValueError, match="linear"):
        AVR(SHAPE, width=8, steps=10, schedule="linear")
    AVR(SHAPE, width=8, steps=25, schedule="linear")
