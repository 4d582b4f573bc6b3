"""Retrieval against a search written out, and what may not answer."""

import pytest
import torch
from toy import SHAPE, random_features

from dataset.types import AUDIO, VISUAL
from models.methods.retrieval import Retrieval


def filled_bank(videos: int = 6, **options) -> tuple[Retrieval, torch.Tensor]:
    """A method that has seen `videos` videos, and their features."""
    method = Retrieval(SHAPE, **{"capacity": 8, "neighbours": 3, "store": "map", **options}).train()
    seen = random_features(videos).with_(video=torch.arange(videos))
    method.views(seen)
    return method.eval(), seen


def lacking(modality: int, size: int = 2, seed: int = 7):
    features = random_features(size, seed)
    presence = features.presence.clone()
    presence[..., modality] = False
    return features.with_(presence=presence)


@pytest.mark.parametrize("store", ["map", "mean"])
def test_the_search_written_out(store):
    """One segment at a time: cosines by hand, sorted, the nearest three averaged by softmax."""
    method, seen = filled_bank(store=store)
    asked = lacking(VISUAL)
    found = method.fill_in(asked).visual
    scale = method.audio_scale.standardise
    values = seen.visual if store == "map" else seen.visual.mean(dim=2, keepdim=True).expand_as(seen.visual)
    for b in range(2):
        for t in range(SHAPE.segments):
            query = scale(asked.audio[b, t])
            cosines = [(float(torch.cosine_similarity(query, scale(seen.audio[v, s]), dim=0)), v, s)
                       for v in range(6) for s in range(SHAPE.segments)]
            nearest = sorted(cosines, reverse=True)[:3]
            weights = torch.softmax(torch.tensor([c for c, _, _ in nearest]) / 0.05, dim=0)
            expected = sum(w * values[v, s] for w, (_, v, s) in zip(weights, nearest, strict=True))
            assert torch.allclose(found[b, t], expected, atol=1e-4)


def test_a_video_in_the_bank_is_found_again():
    method, seen = filled_bank(neighbours=1)
    presence = seen.presence.clone()
    presence[..., AUDIO] = False
    recalled = method.fill_in(seen.with_(presence=presence)).audio
    assert torch.allclose(recalled, seen.audio, atol=1e-5)


@pytest.mark.parametrize(("mode", "searches"), [("all", 2), ("segments", 4), ("lacking", 2)])
def test_a_whole_batch_is_searched_for_what_its_views_lack(mode, searches, monkeypatch):
    """Knowing that nothing is absent saves searches and changes no view."""
    method, seen = filled_bank(views=mode)
    method.train()
    features = seen.with_(question_id=None, question=seen.question.clone().requires_grad_())
    sides, recall, results = [], method.recall, []
    monkeypatch.setattr(method, "recall", lambda query, side, *rest: sides.append(side) or recall(query, side, *rest))
    for nothing_absent in (None, features.presence):
        torch.manual_seed(2)
        sides.clear()
        results.append(method.views(features.with_(nothing_absent=nothing_absent)).features)
    assert len(sides) == searches and list(results[0]) == list(results[1])
    for name, view in results[1].items():
        assert torch.equal(view.audio, results[0][name].audio) and torch.equal(view.visual, results[0][name].visual)


def test_in_training_a_video_does_not_answer_for_itself():
    method, seen = filled_bank(neighbours=1)
    presence = seen.presence.clone()
    presence[..., AUDIO] = False
    recalled = method.train().completed(seen.with_(presence=presence)).audio
    assert not (recalled - seen.audio).abs().amax(dim=-1).lt(1e-5).any()


def test_chunks_change_nothing(monkeypatch):
    method, _ = filled_bank()
    asked = lacking(AUDIO, size=5)
    at_once = method.fill_in(asked).audio
    monkeypatch.setattr("models.methods.retrieval.CHUNK", 1)
    assert torch.allclose(method.fill_in(asked).audio, at_once, atol=1e-6)


def test_an_empty_bank_answers_zeros_and_a_part_is_ignored(monkeypatch):
    """What the bank has no room or no video for never answers."""
    empty = Retrieval(SHAPE, capacity=4).eval()
    assert torch.equal(empty.fill_in(lacking(AUDIO)).audio, torch.zeros(2, SHAPE.segments, SHAPE.channels))
    method, seen = filled_bank(videos=2, neighbours=100)
    monkeypatch.setattr("models.methods.retrieval.TEMPERATURE", 1e6)
    mean = seen.audio.flatten(0, 1).mean(dim=0)
    assert torch.allclose(method.fill_in(lacking(AUDIO)).audio, mean.expand(2, SHAPE.segments, -1), atol=1e-4)


def test_videos_that_lack_something_stay_out():
    method = Retrieval(SHAPE, capacity=4).train()
    seen = random_features(2).with_(video=torch.arange(2))
    presence = seen.presence.clone()
    presence[1, 0, AUDIO] = False
    method.views(seen.with_(presence=presence))
    assert method.owner.tolist() == [0, -1, -1, -1]


def test_what_is_present_stays():
    method, _ = filled_bank()
    asked = lacking(VISUAL)
    assert torch.equal(method.fill_in(asked).audio, asked.audio)
    whole = random_features(2)
    assert torch.equal(method.fill_in(whole).visual, whole.visual)


def test_with_both_sides_absent_the_mean_of_the_bank_answers():
    """The blank that asks would otherwise have neighbours of its own; NaN in it changes nothing."""
    method, seen = filled_bank()
    asked = random_features(2, 7)
    asked.presence[0, 1] = False
    poisoned = asked.with_(audio=torch.where(asked.presence[..., AUDIO, None], asked.audio, float("nan")))
    for given in (asked, poisoned):
        assert torch.allclose(method.fill_in(given).visual[0, 1], seen.visual.flatten(0, 1).mean(dim=0), atol=1e-5)


def test_one_question_that_lacks_something_takes_no_place():
    """Videos 1, 1 and 5 share a place of four; the first whole question has it."""
    method = Retrieval(SHAPE, capacity=4).train()
    seen = random_features(3).with_(video=torch.tensor([1, 1, 5]))
    seen.presence[2, 0, AUDIO] = False
    method.views(seen)
    assert method.owner.tolist() == [-1, 1, -1, -1] and torch.equal(method.audio[1], seen.audio[0])


def test_bf16_finds_the_same_neighbours():
    method, _ = filled_bank(neighbours=1)
    asked = lacking(AUDIO, size=6)
    with torch.autocast("cpu", torch.bfloat16):
        found = method.fill_in(asked).audio
    assert torch.equal(found, method.fill_in(asked).audio)
