"""The posteriors behind the oracle, by rejection sampling from the prior and enumeration."""

from itertools import combinations

import numpy as np
import pytest

from dataset.synthetic import world
from dataset.synthetic.oracle import best_answer, choice_weights
from dataset.synthetic.templates import ANSWERS, ASKABLE, TEMPLATES
from dataset.synthetic.world import COUNT, IN_VIEW, KINDS, SOUNDING, Scenes, given_heard, given_seen, sample

PRIOR = sample(400_000, np.random.default_rng(7))


def same_picture(scenes: Scenes, one: Scenes) -> np.ndarray:
    """Whether each scene looks exactly like `one`."""
    seen, moving = one.seen[0], one.moving[0]
    same = (scenes.seen == seen).all(1) & (scenes.moving == moving).all(1) & (scenes.indoor == one.indoor[0])
    for name, where in (("column", seen), ("row", seen), ("motion", moving), ("tempo", moving), ("seen_onset", moving)):
        same &= (getattr(scenes, name)[:, where] == getattr(one, name)[0, where]).all(1)
    return same


def same_sound(scenes: Scenes, one: Scenes) -> np.ndarray:
    """Whether each scene sounds exactly like `one`."""
    heard = one.heard[0]
    same = (scenes.heard == heard).all(1) & (scenes.reverb == one.reverb[0]) & (scenes.voice == one.voice[0])
    for name in ("loudness", "rhythm", "onset"):
        same &= (getattr(scenes, name)[:, heard] == getattr(one, name)[0, heard]).all(1)
    return same


def common_scene(posterior) -> Scenes:
    """A scene with one noticed source, whose observation the prior repeats often enough."""
    noticed = PRIOR.seen if posterior is given_seen else PRIOR.heard
    plain = noticed.sum(1) == 1
    if posterior is given_seen:
        plain &= ~PRIOR.moving.any(1)
    return PRIOR[[int(np.flatnonzero(plain)[0])]]


@pytest.mark.parametrize("posterior,same", [(given_seen, same_picture), (given_heard, same_sound)])
def test_posteriors_equal_the_prior_under_rejection(posterior, same):
    one = common_scene(posterior)
    accepted = PRIOR[np.flatnonzero(same(PRIOR, one))]
    drawn = posterior(one, 20_000, np.random.default_rng(1))
    assert len(accepted) > 200 and same(drawn, one).all()
    compared = 0
    for template in ASKABLE:
        for choice in range(0, len(template.choices), max(1, len(template.choices) // 5)):
            shares = []
            for scenes in (accepted, drawn):
                weights, answers = choice_weights(template, scenes)
                total = weights.sum(0)
                asked = np.divide(weights[choice], total, out=np.zeros_like(total), where=total > 0)
                shares.append(np.bincount(answers[choice], asked, len(ANSWERS)) / len(scenes))
            np.testing.assert_allclose(*shares, atol=4.5 * 0.5 / len(accepted) ** 0.5)
            compared += shares[1].sum() > 0
    assert compared > 20


def test_unnoticed_sources_against_enumeration_of_all_subsets():
    known = np.isin(np.arange(len(KINDS)), [1, 4])
    expected = {}
    for n in range(1, len(COUNT) + 1):
        subsets = list(combinations(range(len(KINDS)), n))
        for subset in subsets:
            if {1, 4} <= set(subset):
                expected[subset] = COUNT[n - 1] / len(subsets) * IN_VIEW ** 2 * (1 - IN_VIEW) ** (n - 2)
    drawn = world.add_unknown(known, 1 - IN_VIEW, 100_000, np.random.default_rng(0))
    for subset, weight in expected.items():
        share = (drawn == np.isin(np.arange(len(KINDS)), subset)).all(1).mean()
        assert abs(share - weight / sum(expected.values())) < 0.006, subset


def test_the_prior_has_the_stated_rates():
    exists = PRIOR.exists
    assert abs(PRIOR.in_view[exists].mean() - IN_VIEW) < 0.005
    assert abs(PRIOR.sounding[exists & PRIOR.playing].mean() - SOUNDING[1]) < 0.005
    assert abs((PRIOR.loudness == PRIOR.motion)[exists & PRIOR.playing].mean() - (0.85 + 0.15 / 3)) < 0.005
    counts = np.bincount(exists.sum(1), minlength=4)[1:] / len(PRIOR)
    np.testing.assert_allclose(counts, COUNT, atol=0.005)


def test_oracle_without_a_sound_says_what_is_likeliest():
    """Voice-overs are heard in 40 of 100 scenes, never seen: the best silent answer is no."""
    template = next(t for t in ASKABLE if t.text == "Is there a voiceover?")
    drawn = given_seen(PRIOR[[0]], 2000, np.random.default_rng(0))
    assert ANSWERS[best_answer(template, 0, drawn)] == "no"
    indoor = next(t for t in ASKABLE if t.text == "Where is the performance?")
    for one in (PRIOR[[i]] for i in range(5)):
        guess = ANSWERS[best_answer(indoor, 0, given_heard(one, 2000, np.random.default_rng(0)))]
        assert guess == ("indoor" if one.reverb[0] else "outdoor")


def scene(**changes) -> Scenes:
    """One scene: a cello left, a drum right, both playing and sounding from the start."""
    shape = (1, len(KINDS))
    values = {name: np.zeros(shape, int) for name in ("column", "row", "motion", "tempo", "seen_onset", "loudness",
                                                     "rhythm", "onset")}
    values |= {name: np.zeros(shape, bool) for name in ("exists", "in_view", "playing", "sounding")}
    values |= {name: np.zeros(1, bool) for name in ("indoor", "reverb", "voice")}
    for k in (KINDS.index("cello"), KINDS.index("drum")):
        for name in ("exists", "in_view", "playing", "sounding"):
            values[name][0, k] = True
    values["column"][0, KINDS.index("drum")] = 2
    for name, by_kind in changes.items():
        for kind, value in by_kind.items():
            values[name][0, KINDS.index(kind)] = value
    return Scenes(**values)


@pytest.mark.parametrize("text,values,changes,answer", [
    ("How many musical instruments were heard throughout the video?", (), {}, "two"),
    ("How many musical instruments were heard throughout the video?", (), {"sounding": {"drum": 0}}, "one"),
    ("Is there a <Object> sound?", ("drum",), {"sounding": {"drum": 0}}, "no"),
    ("Are there <Object> and <Object> sound? ", ("drum", "cello"), {}, "yes"),
    ("Is the <Object> louder than the <Object>?", ("drum", "cello"), {"loudness": {"drum": 2}}, "yes"),
    ("Is the <Object> louder than the <Object>?", ("drum", "cello"), {}, None),
    ("Is the <Object> playing longer than the <Object>?", ("drum", "cello"), {"onset": {"drum": 1}}, "no"),
    ("How many <Object> are in the entire video?", ("drum",), {"in_view": {"drum": 0}}, "zero"),
    ("What kind of musical instrument is it?", (), {"in_view": {"drum": 0}}, "cello"),
    ("What kind of musical instrument is it?", (), {}, None),
    ("What is the instrument on the <LR> of <Object>?", ("left", "drum"), {"column": {"drum": 1}}, "cello"),
    ("What kind of instrument is the <LRer> instrument? ", ("rightest",), {}, "drum"),
    ("Is the <Object> in the video always playing?", ("drum",), {"onset": {"drum": 2}}, "no"),
    ("Is this sound from the instrument in the video?", (), {"sounding": {"drum": 0}, "in_view": {"cello": 0}}, "no"),
    ("How many instruments are sounding in the video?", (), {"in_view": {"drum": 0}}, "one"),
    ("How many instruments in the video did not sound from beginning to end?", (), {"sounding": {"drum": 0}}, "one"),
    ("Where is the <LL> instrument?", ("loudest",), {"loudness": {"drum": 1}}, "right"),
    ("Where is the <LL> instrument?", ("lowest",), {"loudness": {"drum": 1}}, "left"),
    ("Is the <FL> sound coming from the <LR> instrument?", ("first", "left"), {"onset": {"drum": 1}}, "yes"),
    ("Which is the musical instrument that sounds at the same time as the <Object>?", ("drum",), {}, "cello"),
    ("What is the <TH> instrument that comes in?", ("second",), {"onset": {"cello": 3}}, "cello"),
    ("What is the <TH> instrument that comes in?", ("second",), {}, None),
    ("Which instrument makes sounds <BA> the <Object>?", ("before", "cello"), {"onset": {"cello": 3}}, "drum"),
    ("Where is the <FL> sounding instrument?", ("last",), {"onset": {"cello": 3}}, "left"),
    ("Is the instrument on the <LR> louder than the instrument on the <LR>?", ("right", "left"),
     {"loudness": {"drum": 1}}, "yes"),
    ("Is the <Object> on the <LR> louder than the <Object> on the <LR>?", ("cello", "left", "drum", "right"),
     {"loudness": {"drum": 1}}, "no"),
])
def test_answers_of_a_scene_described_by_hand(text, values, changes, answer):
    """None: the question cannot be asked of this scene."""
    template = next(t for t in TEMPLATES if t.text == text)
    assert values in template.choices
    weight, given = template.ask(scene(**changes), *values)
    assert (weight[0] > 0) == (answer is not None)
    assert answer is None or ANSWERS[given[0]] == answer
