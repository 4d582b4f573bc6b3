"""Conditional AVR: paths worked by hand, what is a condition, what is averaged."""

import math
from typing import ClassVar

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.utils._python_dispatch import TorchDispatchMode
from toy import SHAPE, SPEC, random_batch, random_features

from dataset.types import AUDIO, VISUAL
from models import build_model
from models.conditional_avr.method import ConditionalAVR
from models.conditional_avr.process import PROCESSES, clean_estimate, mixed, reverse
from models.errors import OptionError

OPTIONS = {"width": 16, "layers": 1, "rmm": {"enabled": False}}


def method(**options) -> ConditionalAVR:
    torch.manual_seed(0)
    return ConditionalAVR(SHAPE, **{**OPTIONS, **options}).eval()


def lacking(modality: int, size: int = 3):
    """Features that lack one modality, and those they were made of."""
    features = random_features(size)
    presence = features.presence.clone()
    presence[..., modality] = False
    return features.with_(presence=presence), features


def test_states_worked_by_hand():
    """A third of the way: cos 30 and sin 30 degrees, or two thirds and one third."""
    clean, end, t = torch.full((1, 2), 6.0), torch.full((1, 2), 3.0), torch.tensor([1 / 3])
    assert mixed(PROCESSES["noise"](), clean, end, t) == pytest.approx(6 * math.sqrt(3) / 2 + 3 * 0.5, rel=1e-6)
    assert mixed(PROCESSES["bridge"](), clean, end, t) == pytest.approx(6 * 2 / 3 + 3 / 3, rel=1e-6)


@pytest.mark.parametrize("process", PROCESSES)
@given(t=st.floats(0.01, 1.0), seed=st.integers(0, 99))
@settings(max_examples=30, deadline=None)
def test_v_gives_the_clean_feature_back(process, t, seed):
    """v is the slope of the path, taken here by finite differences in time."""
    path, g = PROCESSES[process](), torch.Generator().manual_seed(seed)
    clean, end = torch.randn(2, 5, generator=g).double(), torch.randn(2, 5, generator=g).double()
    times = torch.full((2,), t).double()
    speed = (mixed(path, clean, end, times + 1e-6) - mixed(path, clean, end, times - 1e-6)) / 2e-6
    v = speed / (math.pi / 2 if process == "noise" else 1)
    state = mixed(path, clean, end, times)
    assert torch.allclose(clean_estimate(path, "v", state, v, times), clean, atol=1e-7)
    assert clean_estimate(path, "x0", state, clean, times) is clean


@pytest.mark.parametrize("process", PROCESSES)
@pytest.mark.parametrize("steps", [1, 2, 7])
def test_reverse_visits_the_path_of_a_true_estimate(process, steps):
    """With the right estimate at every step all states are those of the forward path."""
    path, clean, end = PROCESSES[process](), torch.randn(3, 4).double(), torch.randn(3, 4).double()
    visited = []

    def denoise(state, t):
        visited.append((state, t))
        return clean

    assert torch.allclose(reverse(path, end, steps, denoise), clean)
    assert [float(t[0]) for _, t in visited] == pytest.approx([k / steps for k in range(steps, 0, -1)])
    for state, t in visited:
        assert torch.allclose(state, mixed(path, clean, end, t.double()), atol=1e-6)


def test_one_step_is_the_estimate_from_the_end():
    given_, _ = lacking(AUDIO)
    model = method()
    zeros = torch.zeros_like(model.tokens(given_))
    estimate = model.estimate(given_, zeros, ~given_.presence, torch.ones(3))
    assert torch.equal(model.fill_in(given_).audio, model.audio_scale.restore(estimate[:, :, 0]))


@pytest.mark.parametrize("network", ["transformer", "unet"])
@pytest.mark.parametrize("missing", [AUDIO, VISUAL])
def test_the_present_side_is_a_condition_and_stays(network, missing):
    """It is not changed, it changes the answer, and so does the question."""
    given_, _ = lacking(missing)
    model = method(network=network, layers=2)
    filled = model.fill_in(given_)
    kept, made = (filled.visual, filled.audio) if missing == AUDIO else (filled.audio, filled.visual)
    before = given_.visual if missing == AUDIO else given_.audio
    assert torch.equal(kept, before)
    other = random_features(3, seed=5)
    changed = given_.with_(**({"visual": other.visual} if missing == AUDIO else {"audio": other.audio}))
    for shifted in (changed, given_.with_(question=other.question)):
        after = model.fill_in(shifted)
        assert not torch.allclose(after.audio if missing == AUDIO else after.visual, made)


def test_an_absent_value_is_never_read():
    """NaN in what is absent changes nothing, at every step and sample."""
    given_, _ = lacking(VISUAL)
    poisoned = given_.with_(visual=torch.full_like(given_.visual, float("nan")))
    model = method(steps=3, samples=2)
    assert torch.equal(model.fill_in(given_).visual, model.fill_in(poisoned).visual)


def test_whole_questions_are_not_touched():
    features = random_features(4)
    assert method(steps=2, samples=3).fill_in(features) is features


def test_samples_differ_and_answers_are_averaged():
    """The logits are the logarithm of the mean of the samples' probabilities."""
    torch.manual_seed(0)
    options = {"name": "conditional_avr", **OPTIONS, "steps": 2, "samples": 3}
    model = build_model(SPEC, {"name": "avst"}, options).eval()
    batch = random_batch(4)
    batch.presence[..., AUDIO] = False
    with torch.no_grad():
        features = model.method.fill_in(model.encode(batch))
        assert features.samples == 3 and len(features.audio) == 12
        one, two, _ = features.audio.chunk(3)
        assert not torch.allclose(one, two)
        shares = sum(model.head(model.backbone.fuse(part).vector, batch, None).softmax(dim=-1)
                     for part in features.split(4)) / 3
        assert torch.allclose(model(batch).logits["complete"].exp(), shares, atol=1e-6)


def test_features_are_averaged_where_asked():
    given_, _ = lacking(AUDIO)
    apart, together = method(steps=2, samples=4), method(steps=2, samples=4, average="features")
    mean = apart.fill_in(given_).audio.unflatten(0, (4, 3)).mean(dim=0)
    assert torch.allclose(together.fill_in(given_).audio, mean, atol=1e-5)
    assert torch.allclose(apart.stages(given_)["generated"].audio, mean, atol=1e-5)


def test_the_bridge_starts_at_what_was_recalled():
    """With an estimate that leaves the state as it is, the recalled feature comes out."""
    given_, _ = lacking(AUDIO)
    model = method(process="bridge", rmm={"slots": 5}, objective="v", steps=3)
    torch.nn.init.zeros_(model.network.leave.weight)
    torch.nn.init.zeros_(model.network.leave.bias)
    assert torch.allclose(model.fill_in(given_).audio, model.rmm(given_).audio, atol=1e-5)


@pytest.mark.parametrize("network", ["transformer", "unet"])
def test_training_estimates_for_what_may_lack_something_alone(network, monkeypatch):
    """A batch known to be whole has its complete view handed on; knowing it changes nothing."""
    recaller, features, rows = method(network=network).train(), random_features(3).with_(question_id=None), []
    forward = recaller.network.forward
    monkeypatch.setattr(recaller.network, "forward", lambda real, *rest: rows.append(len(real)) or forward(real, *rest))
    results = []
    for nothing_absent in (None, features.presence):
        torch.manual_seed(1)
        results.append(recaller.views(features.with_(nothing_absent=nothing_absent)))
    one, two = results
    assert rows == [9, 6] and list(one.features) == list(two.features)
    assert torch.isclose(one.losses["estimate"], two.losses["estimate"])
    for name, view in two.features.items():
        for side in ("audio", "visual"):
            assert torch.allclose(getattr(view, side), getattr(one.features[name], side), atol=1e-5)
    assert not torch.isclose(two.features["audio_missing"].audio, features.audio).any()


def test_the_error_is_of_what_was_taken_away():
    """Side by side: 2 of 4 squared in the sound of one question, 1 in the picture of another."""
    model, real = method(), torch.zeros(2, SHAPE.segments, 1 + SHAPE.tokens, SHAPE.channels)
    estimate, removed = real.clone(), torch.zeros(2, SHAPE.segments, 2, dtype=torch.bool)
    estimate[0, :, 0], estimate[1, :, 1:] = 2.0, 1.0
    estimate[0, :, 1:] = 50.0                                # was there, does not count
    removed[0, :, AUDIO] = removed[1, :, VISUAL] = True
    assert float(model.error(estimate, real, removed)) == pytest.approx(4.0 + 1.0)


@pytest.mark.parametrize(("options", "named"), [
    ({"samples": 2}, "method.steps=1"),
    ({"samples": 2, "steps": 4, "process": "bridge"}, "method.process=bridge"),
])
def test_options_without_effect_are_refused(options, named):
    with pytest.raises(OptionError, match=named):
        method(**options)


def test_the_unet_has_as_many_layers_as_it_can_halve():
    """A question, a sound and six tokens: eight places, halved three times."""
    assert method(network="unet", layers=4)
    with pytest.raises(OptionError, match="method.layers=5.*8 places.*4 or fewer"):
        method(network="unet", layers=5)


def test_evaluation_attends_as_training_does():
    """The same answer, and the scores of all pairs of tokens are never a tensor of their own."""
    given_, _ = lacking(VISUAL, size=2)
    model, tokens = method(width=32), 1 + SHAPE.segments * (1 + SHAPE.tokens)

    class Largest(TorchDispatchMode):
        names: ClassVar[set[str]] = set()

        def __torch_dispatch__(self, function, types, args=(), kwargs=None):
            self.names.add(str(function))
            made = function(*args, **kwargs or {})
            for one in made if isinstance(made, tuple) else (made,):
                assert not isinstance(one, torch.Tensor) or one.shape[-2:] != (tokens, tokens)
            return made

    with torch.no_grad(), Largest() as seen:
        filled = model.fill_in(given_).visual
    assert any("scaled_dot_product" in name for name in seen.names)
    assert not any("native_multi_head" in name or "encoder_layer" in name for name in seen.names)
    assert torch.allclose(model.train().fill_in(given_).visual, filled, atol=1e-5)


@pytest.mark.parametrize("related", [True, False])
def test_it_learns_a_relation_between_the_sides(related):
    """Where the picture is the sound, the error falls below that of the mean, 1 a side."""
    torch.manual_seed(0)
    model = ConditionalAVR(SHAPE, **{**OPTIONS, "width": 32}, views="lacking", regression=1.0).train()
    optimiser, errors = torch.optim.Adam(model.parameters(), 1e-2), []
    for step in range(120):
        features = random_features(32, seed=step)
        if related:
            features = features.with_(visual=features.audio.unsqueeze(2).expand_as(features.visual))
        loss = model.views(features.with_(question_id=None)).losses["estimate"]
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        errors.append(loss.item())
    assert (sum(errors[-10:]) / 10 < 1.8) == related


def test_training_never_reads_what_the_data_lack():
    """NaN in entries that are absent for good changes neither loss nor views."""
    features = random_features(4).with_(question_id=None)
    features.presence[1, :, AUDIO] = features.presence[2, 1, VISUAL] = False
    poisoned = features.with_(
        audio=torch.where(features.presence[..., AUDIO, None], features.audio, float("nan")),
        visual=torch.where(features.presence[..., VISUAL, None, None], features.visual, float("nan")))
    results = []
    for given_ in (features, poisoned):
        model = method(views="all").train()
        torch.manual_seed(1)
        results.append(model.views(given_))
    one, two = results
    assert torch.equal(one.losses["estimate"], two.losses["estimate"]) and one.losses["estimate"].isfinite()
    for name in one.features:
        assert torch.equal(one.features[name].audio, two.features[name].audio)
