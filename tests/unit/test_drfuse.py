"""DrFuse: its formulas by hand, brute force and limits, and who takes part in an answer."""

import math
from dataclasses import replace

import pytest
import torch
from torch.nn import functional as F
from toy import SPEC, random_batch, unweighted

from dataset.types import AUDIO, VISUAL
from models.avqa import AVQAModel
from models.backbones.avst import AVST
from models.features import FeatureShape, Fused
from models.heads import MultipleChoice, OpenVocabulary
from models.layers.attention import Stream
from models.methods.drfuse import (
    ClassAttention,
    DrFuse,
    bernoulli_jsd,
    logit_pool,
    ranking_loss,
    summaries,
)

SHAPE = FeatureShape(segments=4, grid=(2, 3), channels=16, answers=7)
CHOICE_SPEC = replace(SPEC, choices=3, answers=0)


class NoSummaries(AVST):
    """A backbone without a point at which each stream stands alone."""

    has_summaries = False

    def fuse(self, features):
        return replace(super().fuse(features), summaries=None)


def build(backbone=AVST, spec=SPEC) -> AVQAModel:
    torch.manual_seed(0)
    head = MultipleChoice(16) if spec.choices else OpenVocabulary(16, spec.answers)
    return AVQAModel(backbone(spec), DrFuse(replace(SHAPE, answers=spec.answers)), head)


def without_dropout(model: AVQAModel) -> AVQAModel:
    for module in model.method.modules():
        if isinstance(module, torch.nn.Dropout):
            module.p = 0.0
    return model


def lacking(size: int = 4, spec=SPEC):
    """Question 1 lacks audio, 2 visual, 3 both."""
    batch = random_batch(size, spec=spec)
    batch.presence[1, :, AUDIO] = batch.presence[2, :, VISUAL] = batch.presence[3] = False
    return batch


@torch.no_grad()
def logits(model: AVQAModel, batch) -> torch.Tensor:
    return model.eval()(batch).logits["complete"]


def read(model: AVQAModel, batch):
    """What the backbone fused in evaluation, and the bundle it fused."""
    features = model.eval().method.fill_in(model.backbone.encode(batch).with_(presence=batch.presence))
    return model.backbone.fuse(features), features


def test_pooling_is_the_logit_of_the_mean_probability():
    torch.manual_seed(0)
    x, y = torch.randn(2, 50, dtype=torch.float64) * 4
    torch.testing.assert_close(logit_pool(x, y), torch.logit((x.sigmoid() + y.sigmoid()) / 2))
    # sigmoid(log 3) = 3/4, sigmoid(0) = 1/2: mean 5/8, odds 5/3
    assert logit_pool(torch.tensor(3.0).log(), torch.tensor(0.0)).item() == pytest.approx(math.log(5 / 3), rel=1e-5)
    far, other = torch.tensor([[200.0, -200.0, 200.0], [200.0, -200.0, -200.0]])     # no overflow; 1 and 0 give 1/2
    torch.testing.assert_close(logit_pool(far, other), torch.tensor([200.0, -200.0, 0.0]))


def entropy(p: torch.Tensor) -> torch.Tensor:
    return -(p * p.log() + (1 - p) * (1 - p).log())


def test_divergence_against_entropies_and_in_its_limits():
    torch.manual_seed(0)
    x, y = torch.randn(2, 5, 8, dtype=torch.float64) * 2
    p, q = x.sigmoid(), y.sigmoid()
    m = (p + q) / 2
    torch.testing.assert_close(bernoulli_jsd(x, y), (entropy(m) - (entropy(p) + entropy(q)) / 2).mean(dim=1))
    torch.testing.assert_close(bernoulli_jsd(x, x), torch.zeros(5, dtype=torch.float64))
    apart = torch.full((1, 3), 200.0)
    assert bernoulli_jsd(apart, -apart).item() == pytest.approx(math.log(2))


def test_ranking_against_loops():
    torch.manual_seed(0)
    weights, costs = torch.rand(4, 3, 5), torch.rand(4, 3, 5)
    expected = []
    for b in range(4):
        pairs = []
        for s, t in ((0, 1), (0, 2), (1, 2)):
            wrong = []
            for k in range(5):
                cheap, dear = (s, t) if costs[b, s, k] < costs[b, t, k] else (t, s)
                wrong.append(max(0.0, float(weights[b, dear, k] - weights[b, cheap, k])))
            wrong = [w for w in wrong if w > 0]
            pairs.append(sum(wrong) / len(wrong) if wrong else 0.0)
        expected.append(sum(pairs) / 3)
    torch.testing.assert_close(ranking_loss(weights, costs), torch.tensor(expected))
    assert not ranking_loss(1 - costs, costs).any()                    # in order, so nothing to say


def test_the_ranking_moves_attention_alone():
    """The ranking moves attention and leaves predictions alone."""
    model, batch = build(), random_batch(5)
    parts_of = {"attention": model.method.attention, "auxiliary": model.method.read_source}
    model.train()(batch).terms["ranking"]["complete"].backward()
    assert parts_of["attention"].project.weight.grad.any()
    assert all(p.grad is None or not p.grad.any() for p in parts_of["auxiliary"].parameters())


def test_attention_against_loops():
    """Attention against loops over questions answers and sources."""
    torch.manual_seed(0)
    H, K = 4, 5
    attention, sources = ClassAttention(H, K), torch.randn(3, 3, H)
    readable = torch.tensor([[True] * 3, [False, True, True], [False] * 3])
    attended, weights = attention(sources, readable)
    for b in range(2):
        at = [s for s in range(3) if readable[b, s]]
        projected = [attention.project(sources[b, s]).split(H) for s in at]     # query, value, K keys
        query = sum(p[0] for p in projected) / len(at)
        for k in range(K):
            weight = torch.softmax(torch.stack([query @ p[2 + k] for p in projected]) / math.sqrt(H), dim=0)
            torch.testing.assert_close(weights[b, k, at], weight)
            torch.testing.assert_close(attended[b, k], sum(w * p[1] for w, p in zip(weight, projected, strict=True)))
    assert not weights[1, :, 0].any() and not weights[2].any() and not attended[2].any()
    attended.sum().backward()
    assert torch.isfinite(attention.project.weight.grad).all()


def test_the_shared_representation_of_one_modality_is_its_own():
    """The shared representation of a question with one modality is that ones."""
    model, batch = build(), lacking()
    parts = model.method.disentangle(*summaries(*read(model, batch)))
    torch.testing.assert_close(parts.pooled[0], logit_pool(parts.shared[0, AUDIO], parts.shared[0, VISUAL]))
    assert torch.equal(parts.pooled[1], parts.shared[1, VISUAL])
    assert torch.equal(parts.pooled[2], parts.shared[2, AUDIO])
    assert parts.readable.tolist() == [[True] * 3, [False, True, True], [True, True, False], [False] * 3]
    assert not torch.allclose(parts.shared[:, AUDIO], parts.shared[:, VISUAL])


def test_what_encodes_an_absent_modality_does_not_matter():
    model, batch = build(), lacking()
    before = logits(model, batch)
    with torch.no_grad():
        for encoders in (model.method.encode_shared, model.method.encode_distinct):
            encoders[AUDIO][0].weight.normal_()
    changed = (logits(model, batch) != before).any(dim=1)
    assert changed.tolist() == [True, False, True, False]


def test_with_neither_modality_the_question_alone_answers():
    model, batch = build(), lacking()
    fused, features = read(model, batch)
    joint = torch.tanh(model.method.context(features.question[3]))
    torch.testing.assert_close(logits(model, batch)[3], model.head.answer(model.method.read_final(joint)))


def test_each_answer_is_read_off_its_own_representation():
    model, batch = build(), lacking()
    fused, features = read(model, batch)
    method, parts = model.method, model.method.disentangle(*summaries(fused, features))
    representations, _ = method.attention(parts.sources, parts.readable)        # (B, A, H)
    scores = logits(model, batch)
    for b in range(3):
        for k in range(SPEC.answers):
            joint = method.read_final(torch.tanh(representations[b, k] * method.context(features.question[b])))
            expected = model.head.answer.weight[k] @ joint + model.head.answer.bias[k]
            torch.testing.assert_close(scores[b, k], expected)


def test_a_single_attention_reads_all_answers():
    """A single attention reads all answers and is the rule of a multiple choice."""
    assert build().method.per_answer and not build(spec=CHOICE_SPEC).method.per_answer
    model, batch = build(spec=CHOICE_SPEC), lacking(spec=CHOICE_SPEC)
    fused, features = read(model, batch)
    parts = model.method.disentangle(*summaries(fused, features))
    one = model.method.attention(parts.sources, parts.readable)[0][:, 0]
    vector = model.method.read_final(torch.tanh(one * model.method.context(features.question)))
    expected = model.head(vector, batch, model.backbone.encode_text)
    torch.testing.assert_close(logits(model, batch)[:3], expected[:3])
    unweighted(model.train(), random_batch(5, spec=CHOICE_SPEC)).backward()
    terms = model(random_batch(5, spec=CHOICE_SPEC)).terms
    assert terms["ranking"]["complete"] > 0
    assert all(p.grad.any() for p in model.parameters() if p.requires_grad)


def test_heads_read_many_vectors_of_a_question_as_one_by_one():
    torch.manual_seed(0)
    batch, vectors = random_batch(2, spec=CHOICE_SPEC), torch.randn(2, 5, 16)
    encode = AVST(SPEC).encode_text
    for head in (MultipleChoice(16), OpenVocabulary(16, 7)):
        together = head(vectors, batch, encode)
        for i in range(5):
            torch.testing.assert_close(together[:, i], head(vectors[:, i], batch, encode))


def test_losses_against_their_definitions():
    """Losses against their definitions and zero where undefined."""
    model, batch = without_dropout(build()), lacking(5)
    batch.answer[4] = -1                                               # an answer outside the training vocabulary
    fused, features = read(model, batch)
    method, parts = model.method, model.method.disentangle(*summaries(fused, features))
    losses = method.answer(fused, features, model.head.answer, batch.answer).losses
    assert {len(v) for v in losses.values()} == {5} and set(losses) == set(method.loss_weights)
    question = method.question(features.question)
    cross = []
    for i in range(3):
        scores = model.head.answer(method.read_source[i](torch.tanh(parts.sources[:, i] * question)))
        cross.append([-F.log_softmax(scores[b], dim=0)[batch.answer[b]].item() for b in range(4)])
    expected = {
        "shared": [cross[1][0], cross[1][1], cross[1][2], 0, 0],
        "distinct": [cross[0][0] + cross[2][0], cross[2][1], cross[0][2], 0, 0],
    }
    for name, values in expected.items():
        torch.testing.assert_close(losses[name], torch.tensor(values, dtype=torch.float32))
    assert (losses["jsd"] > 0).tolist() == [True, False, False, False, True]
    assert (losses["ranking"] > 0).tolist() == [True, False, False, False, False]
    for b, modalities in ((0, (AUDIO, VISUAL)), (1, (VISUAL,)), (2, (AUDIO,)), (3, ())):
        pairs = [(parts.shared[b, m].detach(), parts.distinct[b, m].detach()) for m in modalities]
        cosines = [abs(float(s @ d / (s.norm() * d.norm()))) for s, d in pairs]
        assert losses["orthogonal"][b].item() == pytest.approx(sum(cosines), rel=1e-5)
    assert model.eval()(batch).terms == {}


@pytest.mark.parametrize("term", ["orthogonal", "jsd"])
def test_training_on_one_disentangling_loss_alone(term):
    """Training on one disentangling loss alone does what it says."""
    model, batch = without_dropout(build()), random_batch(8)

    @torch.no_grad()
    def state() -> tuple[float, float]:
        parts = model.method.disentangle(*summaries(*read(model, batch)))
        cosine = F.cosine_similarity(parts.shared, parts.distinct, dim=-1).abs().mean()
        return float(cosine), float((parts.shared[:, AUDIO] - parts.shared[:, VISUAL]).norm())

    before = state()
    optimiser = torch.optim.Adam(model.method.parameters(), lr=3e-3)
    for _ in range(60):
        optimiser.zero_grad()
        model.train()(batch).terms[term]["complete"].backward()
        optimiser.step()
    cosine, distance = state()
    if term == "orthogonal":
        assert cosine < 0.1 * before[0]
    else:
        assert distance < 0.2 * before[1]


def test_it_replaces_the_combination_behind_summaries_only():
    """It takes the place of the combination of a backbone with summaries only."""
    for backbone, replaced in ((AVST, True), (NoSummaries, False)):
        model = build(backbone)
        frozen = {k for k, p in model.named_parameters() if not p.requires_grad}
        assert frozen == ({"backbone.fusion.weight", "backbone.fusion.bias"} if replaced else set())
        before = logits(model, random_batch(2))
        with torch.no_grad():
            model.backbone.fusion.weight.normal_()
        assert torch.equal(logits(model, random_batch(2)), before) == replaced


def test_means_take_the_place_of_summaries():
    """Without summaries the means of what is there take their place."""
    model, batch = build(NoSummaries), lacking()
    batch.presence[0, 2:, AUDIO] = False
    fused, features = read(model, batch)
    assert fused.summaries is None
    pooled, present = summaries(fused, features)
    assert present.tolist() == [[True, True], [False, True], [True, False], [False, False]]
    torch.testing.assert_close(pooled[0, AUDIO], features.audio[0, :2].mean(dim=0))
    torch.testing.assert_close(pooled[0, VISUAL], features.visual[0].mean(dim=(0, 1)))
    assert not pooled[1, AUDIO].any() and not pooled[2, VISUAL].any() and not pooled[3].any()
    unweighted(model.train(), random_batch(5)).backward()
    assert all(p.grad is not None and p.grad.any() for p in model.parameters())


def test_views_say_what_is_real_and_that_nothing_stands_in():
    model, batch = build(), random_batch(3)
    views = model.method.views(model.train().backbone.encode(batch).with_(presence=batch.presence)).features
    assert list(views) == ["complete", "audio_missing", "visual_missing"]
    for name, view in views.items():
        assert not view.filled and view.negative_valid.all() == (name == "complete")
    batch.presence[0, 1:, AUDIO] = False                               # a summary reads the segment that is left
    fused, features = read(model, batch)
    found = model.backbone.temporal_audio(features.question[:1], Stream(features.audio[:1, :1]))
    torch.testing.assert_close(fused.summaries[AUDIO][:1], found)


def test_summaries_of_an_absent_stream_are_never_read():
    model, batch = build(), lacking()
    fused, features = read(model, batch)
    audio, visual = (s.clone() for s in fused.summaries)
    audio[1], visual[2] = float("nan"), float("nan")
    spoilt = Fused(fused.vector, {}, (audio, visual))
    expected = model.method.answer(fused, features, model.head.answer, None).logits
    assert torch.equal(model.method.answer(spoilt, features, model.head.answer, None).logits, expected)
