"""The oracle against exact enumeration of every scene that fits what is left."""

from itertools import combinations, product

import numpy as np
import pytest

from dataset.synthetic.data import codes, make_split, visual_features
from dataset.synthetic.oracle import best_answer, choice_weights, oracle_correct
from dataset.synthetic.partial import given_observed
from dataset.synthetic.templates import ANSWERS, ASKABLE
from dataset.synthetic.world import (
    COLUMNS,
    KINDS,
    ONSETS,
    ROWS,
    SEGMENTS,
    Scenes,
    given_heard,
    given_seen,
    sample,
)

POOL = sample(3000, np.random.default_rng(3))
COUNT, IN_VIEW, PLAYING, SOUNDING, AGREE = (0.3, 0.4, 0.3), 0.88, 0.7, (0.10, 0.95), 0.85     # as documented
QUESTIONS = make_split("test", {"data_seed": 0, "test_videos": 60, "questions_per_video": 8})
CLEAR = 0.04                                     # a lead that sampling does not overturn


def stack(rows: list[dict], one: Scenes) -> Scenes:
    """Scenes like `one` except for the fields that the rows {field: {kind or None: value}} name."""
    scenes = one[np.zeros(len(rows), int)]
    for i, row in enumerate(rows):
        for name, changes in row.items():
            for kind, value in changes.items():
                getattr(scenes, name)[(i,) if kind is None else (i, kind)] = value
    return scenes


def subsets(noticed: np.ndarray, unnoticed_rate: float):
    """Every set of kinds with the noticed ones, prior times the chance to miss the rest."""
    known = set(np.flatnonzero(noticed).tolist())
    for n in range(max(len(known), 1), len(COUNT) + 1):
        every = list(combinations(range(len(KINDS)), n))
        for members in every:
            if known <= set(members):
                yield members, COUNT[n - 1] / len(every) * unnoticed_rate ** (n - len(known))


def enumerate_heard(one: Scenes) -> tuple[Scenes, np.ndarray]:
    """Scenes that sound like `one`: who is there, who is seen where, indoor; with weights."""
    silent = PLAYING * (1 - SOUNDING[1]) + (1 - PLAYING) * (1 - SOUNDING[0])
    rows, weights = [], []
    for members, weight in subsets(one.heard[0], silent):
        for places in product(range(-1, len(COLUMNS)), repeat=len(members)):          # -1: out of view
            for indoor in (False, True):
                w = weight * (0.85 if indoor == one.reverb[0] else 0.15)
                for k, place in zip(members, places, strict=True):
                    column = 0.75 if place == k % len(COLUMNS) else 0.125
                    w *= 1 - IN_VIEW if place < 0 else IN_VIEW * column
                placed = dict(zip(members, places, strict=True))
                rows.append({"exists": {k: k in members for k in range(len(KINDS))},
                             "sounding": {k: bool(one.heard[0, k]) for k in members},
                             "in_view": {k: p >= 0 for k, p in placed.items()},
                             "column": {k: max(p, 0) for k, p in placed.items()}, "indoor": {None: indoor}})
                weights.append(w)
    return stack(rows, one), np.array(weights)


def sound_states(one: Scenes, k: int) -> list[tuple[dict[str, int], float]]:
    """What source `k` may sound like, given what is seen of it; unseen, from the prior."""
    seen, playing = bool(one.seen[0, k]), bool(one.playing[0, k])
    rate = SOUNDING[playing] if seen else PLAYING * SOUNDING[1] + (1 - PLAYING) * SOUNDING[0]
    states = [({"sounding": 0}, 1 - rate)]
    for onset in range(ONSETS):
        level = AGREE * (onset == one.seen_onset[0, k]) + (1 - AGREE) / ONSETS if seen and playing else 1 / ONSETS
        states.append(({"sounding": 1, "onset": onset}, rate * level))
    return states


def enumerate_seen(one: Scenes) -> tuple[Scenes, np.ndarray]:
    """Scenes that look like `one`: who else is there, who sounds, from when on; with weights.
    Levels are left out."""
    rows, weights = [], []
    for members, weight in subsets(one.seen[0], 1 - IN_VIEW):
        for states in product(*(sound_states(one, k) for k in members)):
            row = {"exists": {k: k in members for k in range(len(KINDS))},
                   "in_view": {k: bool(one.seen[0, k]) for k in members}}
            for k, (state, _) in zip(members, states, strict=True):
                for name, value in state.items():
                    row.setdefault(name, {})[k] = value
            rows.append(row)
            weights.append(weight * np.prod([chance for _, chance in states]))
    return stack(rows, one), np.array(weights)


def level_free(template) -> bool:
    """Whether the answer needs no loudness, rhythm or voice, which `enumerate_seen` leaves out."""
    return not any(word in template.text for word in ("louder", "rhythmic", "<LL>", "voiceover"))


CASES = {
    "visual_missing": (given_heard, enumerate_heard, lambda t: True, lambda s: s.heard.sum(1)),
    "audio_missing": (given_seen, enumerate_seen, level_free, lambda s: s.seen.sum(1)),
}


@pytest.mark.parametrize("noticed", [1, 2])
@pytest.mark.parametrize("scenario", CASES)
def test_the_oracle_gives_what_enumeration_finds_likeliest(scenario, noticed):
    posterior, enumerated, covered, number = CASES[scenario]
    one = POOL[[int(np.flatnonzero(number(POOL) == noticed)[0])]]
    scenes, prior = enumerated(one)
    drawn = posterior(one, 6000, np.random.default_rng(0))
    compared = 0
    for template in filter(covered, ASKABLE):
        weights, answers = choice_weights(template, scenes)
        total = weights.sum(axis=0)
        for choice in range(0, len(template.choices), max(1, len(template.choices) // 6)):
            share = np.divide(weights[choice], total, out=np.zeros_like(total), where=total > 0) * prior / prior.sum()
            exact = np.bincount(answers[choice], share, len(ANSWERS))
            second, first = np.sort(exact)[-2:]
            if first - second > CLEAR * first and first > 0.01:
                assert best_answer(template, choice, drawn) == exact.argmax(), (template.text, template.choices[choice])
                compared += 1
    assert compared > 15


def test_what_is_seen_and_heard_settles_every_answer():
    """Complete input is worth 100: what no stream shows changes no weight and no answer."""
    other = sample(len(POOL), np.random.default_rng(4))
    changed = POOL[:]
    hidden = dict.fromkeys(("in_view", "sounding"), ~POOL.exists)
    hidden |= dict.fromkeys(("column", "row", "playing"), ~POOL.seen)
    hidden |= dict.fromkeys(("motion", "tempo", "seen_onset"), ~POOL.moving)
    hidden |= dict.fromkeys(("loudness", "rhythm", "onset"), ~POOL.heard)
    for name, where in hidden.items():
        setattr(changed, name, np.where(where, getattr(other, name), getattr(POOL, name)))
    for template in ASKABLE:
        weights, answers = choice_weights(template, POOL)
        changed_weights, changed_answers = choice_weights(template, changed)
        np.testing.assert_array_equal(weights, changed_weights, err_msg=template.text)
        np.testing.assert_array_equal(answers[weights > 0], changed_answers[weights > 0], err_msg=template.text)


@pytest.mark.parametrize("present", [[1, 2]], ids=str)
def test_a_part_of_the_sound_leaves_the_right_posterior(present):
    """One scene drawn per scene of the prior has the prior's joint law with what was noticed."""
    pool = POOL[:1500]
    mask = np.stack([np.isin(np.arange(SEGMENTS), present), np.ones(SEGMENTS, dtype=bool)], axis=1)     # (T, 2)
    drawn = [given_observed(pool[[i]], mask, 1, np.random.default_rng(i)) for i in range(len(pool))]
    heard, onset, loudness = (np.concatenate([getattr(s, name) for s in drawn])
                              for name in ("heard", "onset", "loudness"))
    seen, moving = pool.seen, pool.moving

    def noticed(heard, onset):                   # (S, T', K): what sounds in the segments that are there
        return heard[:, None] & (onset[:, None] <= np.array(present)[None, :, None])

    np.testing.assert_array_equal(noticed(heard, onset), noticed(pool.heard, pool.onset))
    known = noticed(pool.heard, pool.onset).any(axis=1)
    np.testing.assert_array_equal(loudness[known], pool.loudness[known])
    for of_scene in (
        lambda heard, onset, loudness: heard.sum(1), lambda heard, onset, loudness: (heard & ~seen).sum(1),
        lambda heard, onset, loudness: heard.sum(1) * seen.sum(1),
        lambda heard, onset, loudness: (heard & moving & (onset == pool.seen_onset)).sum(1),
        lambda heard, onset, loudness: (heard & moving & (loudness == pool.motion)).sum(1),
        *(lambda heard, onset, loudness, o=o: (heard & (onset == o)).sum(1) for o in range(ONSETS)),
    ):
        gap = of_scene(heard, onset, loudness) - of_scene(pool.heard, pool.onset, pool.loudness)
        assert abs(gap.mean()) <= 4 * gap.std() / len(gap) ** 0.5


def test_the_oracle_knows_more_the_more_is_there():
    """All of the picture counts for no more than one segment; the sound's segments add up."""
    right = {name: np.mean(oracle_correct(*QUESTIONS, name)) for name in (
        "audio_missing", "audio_all_but_one", "audio_half", "audio_second", "visual_all_but_one")}
    assert list(right.values()) == sorted(right.values()) and right["visual_all_but_one"] == 1
    assert right["audio_missing"] + 0.02 < right["audio_all_but_one"] < right["audio_half"] <= right["audio_second"]


def test_oracle_is_repeatable_and_complete_input_is_always_right():
    questions = [{"scene": i, "template": t, "choice": 0, "answer": "yes"} for i in range(5) for t in range(4)]
    assert oracle_correct(POOL, questions, "complete") == [True] * len(questions)
    for scenario in ("audio_missing", "visual_missing", "both_missing", "audio_half"):
        first = oracle_correct(POOL, questions, scenario)
        assert first == oracle_correct(POOL, questions, scenario) and len(first) == len(questions)


def test_what_is_seen_can_be_read_off_the_features():
    """The oracle conditions on clean observations: least squares on the known codes recovers the
    picture of a cell even where two sources share it."""
    scenes = sample(300, np.random.default_rng(0))
    C, K, N = 96, len(KINDS), ROWS * len(COLUMNS)
    maps = visual_features(scenes, {"noise": 0.3, "channels": C}, np.random.default_rng(1))
    late = maps[:, ONSETS - 1:].mean(axis=1).reshape(len(scenes), C, N)                # all motion has begun
    placed = codes("kind", K, C)[:, None] + codes("kind in column", K, len(COLUMNS), C)
    wrong = total = 0
    for cell in range(N):
        column = cell % len(COLUMNS)
        basis = np.concatenate([placed[:, column], codes("playing", K, C), codes("motion", K, C), codes("tempo", K, C),
                                codes("indoor", C)[None]])
        solved = np.linalg.lstsq(basis.T, late[:, :, cell].T, rcond=None)[0].T
        here = scenes.seen & (scenes.column == column) & (scenes.row == cell // len(COLUMNS))
        wrong += ((solved[:, :K] > 0.5) != here).sum()
        wrong += (np.abs(solved[:, 2 * K:3 * K] - scenes.motion)[here & scenes.playing] > 0.5).sum()
        wrong += ((solved[:, -1] > 0.5) != scenes.indoor).sum()
        total += here.size + len(scenes)
    assert wrong / total < 0.001
