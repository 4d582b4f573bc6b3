"""Laws L1-L8 of the seam over every backbone and method, in every case of absence.

All laws look at the same model of a pair; every test starts from its initial weights. The message
of a failure names the case.
"""

from dataclasses import replace

import pytest
import torch
from contracts.pairs import CASES, PARAMS, answer, build, poison, with_absence
from toy import SPEC, completed, random_batch, unweighted

NAN = float("nan")
ABSENT = CASES[1:]


@pytest.fixture(scope="module", params=PARAMS)
def built(request):
    """The model of one pair, its initial weights, and its answers with them in every case."""
    model = build(request.param)
    answers = {case: answer(model, with_absence(case)) for case in CASES}
    return model, {name: value.clone() for name, value in model.state_dict().items()}, answers


@pytest.fixture
def model(built):
    model, weights, _ = built
    model.load_state_dict(weights)
    model.zero_grad(set_to_none=True)
    return model.eval()


@pytest.fixture
def answers(built):
    return built[2]


def assert_close(a, b, case, **tolerance):
    torch.testing.assert_close(a, b, msg=lambda text: f"{case}: {text}", **tolerance)


def test_l1_no_absent_value_reaches_the_logits(model, answers):
    for case in ABSENT:
        for value in (0.0, NAN, float("inf"), 1e4):
            assert torch.equal(answers[case], answer(model, poison(with_absence(case), value))), f"{case}: {value}"


def test_l1_no_absent_value_reaches_a_gradient(model):
    """Nor a running statistic: the initial weights are put back between both passes."""
    weights = {name: value.clone() for name, value in model.state_dict().items()}
    for case in ("audio_missing", "visual_missing", "both_missing", "mixed"):          # mixed has segments, too
        gradients = []
        for value in (0.0, NAN):
            torch.manual_seed(3)
            model.load_state_dict(weights)
            model.train().zero_grad()
            loss = unweighted(model, poison(with_absence(case), value))
            assert torch.isfinite(loss), case
            loss.backward()
            gradients.append({k: p.grad for k, p in model.named_parameters() if p.grad is not None})
        blank, poisoned = gradients
        assert blank.keys() == poisoned.keys(), case
        for name, gradient in blank.items():
            assert torch.isfinite(gradient).all() and torch.equal(gradient, poisoned[name]), f"{case}: {name}"


@torch.no_grad()
def test_l2_a_method_returns_what_it_received(model):
    """Shapes and types, of every sample."""
    for case in CASES:
        features = model.backbone.encode(poison(with_absence(case), 0.0))
        after = completed(model, features)
        for name in ("audio", "visual", "words", "question"):
            a, b = getattr(features, name), getattr(after, name)
            assert b.shape == (5 * after.samples, *a.shape[1:]) and a.dtype == b.dtype, f"{case}: {name}"
        assert features.audio.shape == (5, SPEC.segments, model.backbone.dim), case
        assert features.visual.shape == (5, SPEC.segments, SPEC.tokens, model.backbone.dim), case


def test_l3_permuting_the_batch_permutes_the_logits(model, answers):
    order = torch.tensor([3, 0, 4, 2, 1])
    for case in CASES:
        permuted = answer(model, with_absence(case).map(lambda t: t[order]))
        assert_close(answers[case][order], permuted, case)


def test_l4_a_question_alone_equals_itself_in_a_batch(model, answers):
    """All where each lacks something else, else the first and the last."""
    for case in CASES:
        batch, rows = with_absence(case), range(5) if case == "mixed" else (0, 4)
        alone = torch.cat([answer(model, batch.map(lambda t, i=i: t[i:i + 1])) for i in rows])
        assert_close(alone, answers[case][list(rows)], case, atol=1e-5, rtol=1e-4)


@torch.no_grad()
def test_l5_a_stream_is_encoded_from_its_own_modality(model):
    batch = random_batch(3)
    base = model.backbone.encode(batch)
    louder = model.backbone.encode(replace(batch, audio=batch.audio + 1))
    brighter = model.backbone.encode(replace(batch, visual=batch.visual + 1))
    assert torch.equal(base.visual, louder.visual) and not torch.equal(base.audio, louder.audio)
    assert torch.equal(base.audio, brighter.audio) and not torch.equal(base.visual, brighter.visual)


def test_l6_evaluation_is_deterministic_per_question(model, answers):
    torch.manual_seed(99)
    for case in CASES:
        assert torch.equal(answers[case], answer(model, with_absence(case))), case


def test_l7_gradients_reach_every_parameter(model):
    """And every term has a weight, or `unweighted` raises a KeyError."""
    unweighted(model.train(), random_batch(5)).backward()
    unreached = [name for name, p in model.named_parameters()
                 if p.requires_grad and (p.grad is None or not p.grad.any())]
    assert unreached == []


def test_l8_evaluation_answers_one_completed_finite_view(model):
    for case in CASES:
        with torch.no_grad():
            output = model(poison(with_absence(case), NAN))
        assert list(output.logits) == ["complete"] and output.terms == {}, case
        assert output.logits["complete"].shape == (5, SPEC.answers), case
        assert torch.isfinite(output.logits["complete"]).all(), case


@torch.no_grad()
def test_complete_input_is_touched_only_where_a_method_says_so(model):
    features = model.backbone.encode(random_batch(3))
    after = completed(model, features)
    same = [torch.equal(after.audio, features.audio), torch.equal(after.visual, features.visual)]
    assert same == [model.method.keeps_present] * 2


@torch.no_grad()
def test_a_backbone_hands_over_summaries_if_it_says_so(model):
    for case in CASES:
        features = completed(model, model.backbone.encode(poison(with_absence(case), 0.0)))
        summaries = model.backbone.fuse(features).summaries
        assert (summaries is not None) == model.backbone.has_summaries, case
        shape = (5 * features.samples, model.backbone.dim)
        assert summaries is None or [s.shape for s in summaries] == [shape] * 2, case
