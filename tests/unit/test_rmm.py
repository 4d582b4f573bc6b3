"""RMM against Eq. 1-4 worked out by hand and by plain loops."""

import math

import pytest
import torch
from toy import SHAPE, random_features

from dataset.types import VISUAL
from models.features import Features, FeatureShape
from models.rmm_avr.released import ReleasedRMM
from models.rmm_avr.rmm import RMM


def softmax(values):
    exponentials = [math.exp(v) for v in values]
    return [e / sum(exponentials) for e in exponentials]


def tiny():
    """One question, one segment, one token, c = 2, two slots, all numbers given."""
    rmm = RMM(FeatureShape(1, (1, 1), 2), slots=2)
    with torch.no_grad():
        rmm.visual_slots.copy_(torch.tensor([[1.0, 0.0], [0.0, 2.0]]))
        rmm.text_slots.copy_(torch.tensor([[0.5, 0.5], [1.0, -1.0]]))
        rmm.audio_slots.copy_(torch.tensor([[3.0, 1.0], [-1.0, 2.0]]))
    features = Features(
        audio=torch.tensor([[[1.0, -2.0]]]), visual=torch.tensor([[[[2.0, 1.0]]]]), words=torch.zeros(1, 1, 2),
        word_mask=torch.ones(1, 1, dtype=torch.bool), question=torch.tensor([[1.0, 3.0]]),
        question_id=torch.tensor([1]), presence=torch.ones(1, 1, 2, dtype=torch.bool),
    )
    return rmm, features


def test_pseudo_audio_follows_equations_1_and_2_by_hand():
    rmm, features = tiny()
    root = math.sqrt(2)
    a_v = softmax([2 / root, 2 / root])          # 2*1 + 1*0 and 2*0 + 1*2
    a_t = softmax([2 / root, -2 / root])         # .5 + 1.5 and 1 - 3
    a_vt = softmax([v * t for v, t in zip(a_v, a_t, strict=True)])
    expected = [a_vt[0] * 3 - a_vt[1], a_vt[0] + 2 * a_vt[1]]
    assert rmm(features).audio.flatten().tolist() == pytest.approx(expected, abs=1e-6)


def test_pseudo_visual_and_loss_follow_equations_2_to_4_by_hand():
    rmm, features = tiny()
    root = math.sqrt(2)
    a_a = softmax([(3 - 2) / root, (-1 - 4) / root])
    a_t = softmax([2 / root, -2 / root])
    a_at = softmax([a * t for a, t in zip(a_a, a_t, strict=True)])
    visual = [a_at[0], 2 * a_at[1]]
    pseudo = rmm(features)
    assert pseudo.visual.flatten().tolist() == pytest.approx(visual, abs=1e-6)
    audio = pseudo.audio.flatten().tolist()
    squares = [(1 - audio[0]) ** 2 + (-2 - audio[1]) ** 2, (2 - visual[0]) ** 2 + (1 - visual[1]) ** 2]
    assert float(rmm.loss(features, pseudo)) == pytest.approx(sum(squares) / 2, rel=1e-5)      # mean of 2
    rmm.loss_reduction = "sum"
    assert float(rmm.loss(features, pseudo)) == pytest.approx(sum(squares), rel=1e-5)


def test_every_segment_is_addressed_with_its_own_question():
    """A plain loop over questions and segments; the released code mixes rows here."""
    rmm, features = RMM(SHAPE, slots=5), random_features(3)
    pseudo = rmm(features)
    for b in range(3):
        for t in range(4):
            vector = features.visual[b, t].T.reshape(-1)
            a_v = torch.softmax(rmm.visual_slots @ vector / math.sqrt(16), dim=0)
            a_t = torch.softmax(rmm.text_slots @ features.question[b] / math.sqrt(16), dim=0)
            expected = torch.softmax(a_v * a_t, dim=0) @ rmm.audio_slots
            torch.testing.assert_close(pseudo.audio[b, t], expected, atol=1e-5, rtol=1e-5)


def test_the_addressing_prefers_a_slot_at_most_e_times():
    """The published addressing cannot prefer a slot more than e times."""
    torch.manual_seed(0)
    features = random_features(4)
    sharp, free = RMM(SHAPE, slots=9), RMM(SHAPE, slots=9, addressing="product_of_experts")
    for rmm in (sharp, free):
        for slots in rmm.parameters():
            slots.data *= 50
    weights = sharp(features).audio_addressing
    assert float((weights.max(-1).values / weights.min(-1).values).max()) <= math.e + 1e-4
    assert float(free(features).audio_addressing.max()) > 0.99


def test_product_of_experts_is_the_normalised_product():
    rmm, features = RMM(SHAPE, slots=5, addressing="product_of_experts"), random_features(2)
    weights = rmm(features).visual_addressing
    a_a = torch.softmax(features.audio @ rmm.audio_slots.T / 4, dim=-1)
    a_t = torch.softmax(features.question @ rmm.text_slots.T / 4, dim=-1)[:, None]
    product = a_a * a_t
    torch.testing.assert_close(weights, product / product.sum(-1, keepdim=True))


def test_cosine_ignores_the_length_of_the_vectors():
    rmm, features = ReleasedRMM(SHAPE, slots=5), random_features(2)
    longer = features.with_(audio=features.audio * 7, visual=features.visual * 3, question=features.question * 2)
    torch.testing.assert_close(rmm(features).audio, rmm(longer).audio)


def test_scale_by_length_divides_by_the_flattened_map():
    features = random_features(2)
    by_channels, by_length = RMM(SHAPE, slots=5), RMM(SHAPE, slots=5, scale="length")
    vector = features.visual.flatten(2)
    ratio = by_channels.score(vector, by_channels.visual_slots) / by_length.score(vector, by_channels.visual_slots)
    torch.testing.assert_close(ratio, torch.full_like(ratio, math.sqrt(6)))


def test_loss_counts_only_segments_where_both_are_real():
    rmm, features = RMM(SHAPE, slots=5), random_features(2)
    pseudo = rmm(features)
    features.presence[0, 1:, VISUAL] = False
    changed = features.with_(audio=features.audio.clone())
    changed.audio[0, 1:] = 1e6
    assert float(rmm.loss(features, pseudo)) == float(rmm.loss(changed, pseudo))
