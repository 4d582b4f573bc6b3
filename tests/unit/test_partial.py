"""Draws given single segments, against rejection from the prior and the draws of whole streams."""

import numpy as np
import pytest

from dataset.synthetic.oracle import answer_weights
from dataset.synthetic.partial import COURSES, HEARD, SEEN, course_chances, given_observed
from dataset.synthetic.templates import ANSWERS, ASKABLE
from dataset.synthetic.world import SEGMENTS, Scenes, given_heard, given_seen, sample
from dataset.types import AUDIO, VISUAL

POOL = sample(400, np.random.default_rng(5))
EVERY = range(SEGMENTS)


def presence(heard=(), seen=()):
    there = np.zeros((SEGMENTS, 2), bool)
    there[list(heard), AUDIO], there[list(seen), VISUAL] = True, True
    return there


def drawn(scene, size=4000, **segments):
    return given_observed(scene, presence(**segments), size, np.random.default_rng(0))


def answers(template, choice, scenes):
    """Of every answer the chance that the question is asked and has it, (A,)."""
    return answer_weights(ASKABLE[template], choice, scenes) / len(scenes)


def observation(scenes: Scenes, heard, seen) -> np.ndarray:
    """All that the segments let hear and show, a row of numbers per scene."""
    columns = []
    for segments, there, onset, names, whole in (
        (heard, scenes.heard, scenes.onset, ("loudness", "rhythm"), ("reverb", "voice")),
        (seen, scenes.moving, scenes.seen_onset, ("motion", "tempo"), ("indoor",)),
    ):
        begun = [there & (onset <= t) for t in segments]
        columns += begun
        if len(segments):
            columns += [np.where(begun[-1], getattr(scenes, name), -1) for name in names]
            columns += [getattr(scenes, name)[:, None] for name in whole]
    if len(seen):
        columns += [scenes.seen, *(np.where(scenes.seen, getattr(scenes, name), -1) for name in ("column", "row"))]
    return np.concatenate(columns, axis=1).astype(int)


def test_the_courses_have_a_distribution():
    chances = course_chances()
    assert len(chances) == 5184 and chances.sum() == pytest.approx(1)
    assert chances[COURSES["playing"]].sum() == pytest.approx(0.7)
    agree = COURSES["playing"] & (COURSES["motion"] == COURSES["loudness"])
    assert chances[agree].sum() == pytest.approx(0.7 * (0.85 + 0.15 / 3))


@pytest.fixture(scope="module")
def prior():
    return sample(400_000, np.random.default_rng(1))


@pytest.mark.parametrize("heard, seen", [((0,), ()), ((), (0, 1)), ((1, 2), ()), ((0,), (1,))])
def test_draws_are_those_that_rejection_leaves(prior, heard, seen):
    """Of many scenes from the prior, those that agree in what is heard and seen."""
    every = observation(prior, heard, seen)
    rows, counts = np.unique(every[:20_000], axis=0, return_counts=True)
    likely = rows[counts.argmax()]
    kept = prior[(every == likely).all(axis=1)]
    assert len(kept) > 2000
    ours = drawn(kept[[0]], 8000, heard=heard, seen=seen)
    assert (observation(ours, heard, seen) == likely).all()
    for name in ("exists", "heard", "seen", "moving", "indoor", "reverb", "voice"):
        assert getattr(ours, name).mean(0) == pytest.approx(getattr(kept, name).mean(0), abs=0.04), name
    for template in (0, 3, 6, 8, 9, 14, 17, 21, 29):
        assert answers(template, 0, ours) == pytest.approx(answers(template, 0, kept), abs=0.03), template


@pytest.mark.parametrize("posterior, segments", [
    (given_seen, {"seen": EVERY}), (given_heard, {"heard": EVERY}), (lambda _, *rest: sample(*rest), {})])
def test_whole_streams_give_the_known_posterior(posterior, segments):
    for number in range(6):
        one = POOL[[number]]
        known, ours = posterior(one, 4000, np.random.default_rng(1)), drawn(one, **segments)
        for template in range(0, len(ASKABLE), 3):
            assert answers(template, 0, ours) == pytest.approx(answers(template, 0, known), abs=0.04), template


def test_complete_input_determines_the_answer():
    for number in range(12):
        ours = drawn(POOL[[number]], 200, heard=EVERY, seen=EVERY)
        for template, asked in enumerate(ASKABLE):
            for choice, values in enumerate(asked.choices[:8]):
                weight, answer = asked.ask(POOL[[number]], *values)
                if weight[0]:
                    assert set(np.flatnonzero(answers(template, choice, ours))) == {answer[0]}, ANSWERS[answer[0]]
                else:
                    assert not answers(template, choice, ours).any()


def test_what_is_taken_away_is_not_read():
    """Other values behind the switches, the same draws."""
    heard, seen = (0, 1), (0,)
    for number in range(20):
        one = POOL[[number]]
        wanted, spoilt = drawn(one, 50, heard=heard, seen=seen), one[np.array([0])]
        for names, begun in ((HEARD, one.heard & (one.onset <= 1)), (SEEN, one.moving & (one.seen_onset <= 0))):
            for name in names[1:-1]:
                getattr(spoilt, name)[~begun] = 99
            getattr(spoilt, names[-1])[~begun & (getattr(one, names[-1]) > 1)] = 99
        for name in ("column", "row"):
            getattr(spoilt, name)[~one.seen] = 99
        again = drawn(spoilt, 50, heard=heard, seen=seen)
        assert all(np.array_equal(getattr(wanted, name), getattr(again, name)) for name in vars(wanted)), number
