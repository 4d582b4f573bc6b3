"""Laws L1-L8 of the seam over every registered backbone and method, at toy size.

Absence cases: whole modality, both modalities, single segments.
"""

from copy import deepcopy
from dataclasses import replace
from functools import cache

import pytest
import torch
from toy import SPEC, random_batch

from dataset.types import AUDIO, VISUAL
from engine.config import compose
from models import BACKBONES, METHODS, build_model

# Other settings of a component that change what is computed enough to be another one, with every partner that differs.
VARIANTS = ("modality_alignment preset=agreement", "modality_alignment preset=agreement values=visual norm=batch",
            "pstp_net variant=released")
PAIRS = [(b, m) for b in BACKBONES for m in METHODS if b == "avst" or m != "released"]     # a slow denoiser: once is enough
PAIRS += [(b, m) for b in VARIANTS for m in ("plain", "prompts", "drfuse")]
PAIRS += [pytest.param("avst", "rmm_avr method.label_smoothing=0.1 method.views=segments rmm.addressing=product_of_experts "
                       "rmm.scale=length avr.enabled=false", id="avst-rmm_avr plus")]
SHRUNK = {"rmm_avr": ["avr.steps=3"], "released": ["avr.steps=3", "avr.width=8"]}    # the laws do not depend on these
CASES = ("complete", "audio_missing", "visual_missing", "both_missing", "segments", "mixed")
pytestmark = pytest.mark.parametrize("backbone,method", PAIRS)


def make(backbone: str, method: str, seed: int = 0, *overrides: str):
    config = configuration(backbone, method, *overrides)
    torch.manual_seed(seed)
    return build_model(SPEC, config["backbone"], config["method"])


@cache
def composed(*overrides: str):
    return compose(None, list(overrides))


def configuration(backbone: str, method: str, *overrides: str):
    (backbone, *of_backbone), (method, *of_method) = backbone.split(), method.split()
    return deepcopy(composed("dataset=music_avqa", f"backbone={backbone}", f"method={method}", *SHRUNK.get(method, []),
                             *(f"backbone.{option}" for option in of_backbone), *of_method, *overrides))


def with_absence(batch, case: str):
    presence = batch.presence.clone()
    if case in ("audio_missing", "both_missing"):
        presence[..., AUDIO] = False
    if case in ("visual_missing", "both_missing"):
        presence[..., VISUAL] = False
    if case == "segments":
        presence[:, 1, AUDIO] = False
        presence[:, 2:, VISUAL] = False
    if case == "mixed":
        presence[0, :, AUDIO] = False
        presence[1, :, VISUAL] = False
        presence[2] = False
    return replace(batch, presence=presence)


def poison(batch, value: float):
    """`value` in every absent raw entry."""
    audio, visual = batch.audio.clone(), batch.visual.clone()
    audio[~batch.presence[..., AUDIO]] = value
    visual[~batch.presence[..., VISUAL]] = value
    return replace(batch, audio=audio, visual=visual)


def logits(model, batch):
    model.eval()
    with torch.no_grad():
        return model(batch).logits["complete"]


@pytest.mark.parametrize("value", [float("nan"), float("inf"), 1e4])
@pytest.mark.parametrize("case", CASES[1:])
def test_l1_no_absent_value_reaches_the_logits(backbone, method, case, value):
    model, batch = make(backbone, method), with_absence(random_batch(5), case)
    assert torch.equal(logits(model, poison(batch, 0.0)), logits(model, poison(batch, value)))


@pytest.mark.parametrize("case", CASES[1:])
def test_l1_no_absent_value_reaches_a_gradient(backbone, method, case):
    model, found = make(backbone, method), []
    for value in (0.0, float("nan")):
        torch.manual_seed(3)
        model.train().zero_grad()
        restore = {k: v.clone() for k, v in model.state_dict().items()}
        sum(model(poison(with_absence(random_batch(5), case), value)).terms.values()).backward()
        found.append({k: p.grad for k, p in model.named_parameters() if p.grad is not None})
        model.load_state_dict(restore)
    assert found[0].keys() == found[1].keys()
    for name, grad in found[0].items():
        assert torch.isfinite(grad).all() and torch.equal(grad, found[1][name]), name


@pytest.mark.parametrize("case", CASES)
def test_l2_a_method_returns_the_shapes_and_types_it_received(backbone, method, case):
    model, batch = make(backbone, method).eval(), with_absence(random_batch(5), case)
    features = model.backbone.encode(poison(batch, 0.0))
    completed = model.method.complete(features, batch.presence)
    for name in ("audio", "visual", "words", "question"):
        before, after = getattr(features, name), getattr(completed, name)
        assert before.shape == after.shape and before.dtype == after.dtype
    assert features.audio.shape == (5, SPEC.segments, model.backbone.dim)
    assert features.visual.shape == (5, SPEC.segments, SPEC.tokens, model.backbone.dim)


@pytest.mark.parametrize("case", CASES)
def test_l3_permuting_the_batch_permutes_the_logits(backbone, method, case):
    model, batch, order = make(backbone, method), with_absence(random_batch(5), case), torch.tensor([3, 0, 4, 2, 1])
    torch.testing.assert_close(logits(model, batch)[order], logits(model, batch.map(lambda t: t[order])))


@pytest.mark.parametrize("case", CASES)
def test_l4_a_question_alone_equals_itself_in_a_batch(backbone, method, case):
    model, batch = make(backbone, method), with_absence(random_batch(5), case)
    alone = torch.cat([logits(model, batch.map(lambda t, i=i: t[i:i + 1])) for i in range(5)])
    torch.testing.assert_close(alone, logits(model, batch), atol=1e-5, rtol=1e-4)


def test_l5_each_stream_is_encoded_from_its_own_modality(backbone, method):
    model, batch = make(backbone, method).eval(), random_batch(3)
    base = model.backbone.encode(batch)
    louder = model.backbone.encode(replace(batch, audio=batch.audio + 1))
    brighter = model.backbone.encode(replace(batch, visual=batch.visual + 1))
    assert torch.equal(base.visual, louder.visual) and not torch.equal(base.audio, louder.audio)
    assert torch.equal(base.audio, brighter.audio) and not torch.equal(base.visual, brighter.visual)


@pytest.mark.parametrize("case", CASES)
def test_l6_evaluation_is_deterministic_per_question(backbone, method, case):
    model, batch = make(backbone, method), with_absence(random_batch(5), case)
    first = logits(model, batch)
    torch.manual_seed(99)
    torch.randn(7)
    assert torch.equal(first, logits(model, batch))


def test_l7_gradients_reach_every_parameter(backbone, method):
    model = make(backbone, method).train()
    batch = random_batch(5)
    output = model(batch)
    weights = model.loss_weights
    assert all(name in weights or name.split("_")[0] in weights for name in output.terms)
    sum(output.terms.values()).backward()
    without = [k for k, p in model.named_parameters() if p.requires_grad and (p.grad is None or not p.grad.abs().sum())]
    assert without == []


@pytest.mark.parametrize("case", CASES)
def test_l8_evaluation_uses_one_completed_finite_view(backbone, method, case):
    model, batch = make(backbone, method), with_absence(random_batch(5), case)
    model.eval()
    with torch.no_grad():
        output = model(poison(batch, float("nan")))
    assert list(output.logits) == ["complete"] and output.terms == {}
    assert output.logits["complete"].shape == (5, SPEC.answers)
    assert torch.isfinite(output.logits["complete"]).all()


def test_complete_input_is_touched_only_by_a_method_that_says_so(backbone, method):
    model, batch = make(backbone, method).eval(), random_batch(3)
    features = model.backbone.encode(batch)
    completed = model.method.complete(features, batch.presence)
    same = [torch.equal(completed.audio, features.audio), torch.equal(completed.visual, features.visual)]
    assert same == [model.method.keeps_present] * 2


def test_training_accepts_data_that_lack_a_modality(backbone, method):
    model = make(backbone, method).train()
    batch = with_absence(random_batch(5), "mixed")
    terms = model(poison(batch, float("nan"))).terms
    assert all(torch.isfinite(v) for v in terms.values())


@pytest.mark.parametrize("case", CASES)
def test_a_backbone_hands_over_summaries_if_it_says_so(backbone, method, case):
    model, batch = make(backbone, method).eval(), with_absence(random_batch(5), case)
    completed = model.method.complete(model.backbone.encode(poison(batch, 0.0)), batch.presence)
    summaries = model.backbone.fuse(completed).summaries
    assert (summaries is not None) == model.backbone.has_summaries
    assert summaries is None or [s.shape for s in summaries] == [(5, model.backbone.dim)] * 2
