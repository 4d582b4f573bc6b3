"""Scenes that fit what single segments of a scene show and let hear.

Given which kinds are there, sources are independent, and the course of one (plays, how, from when;
sounds, how, from when) is one of 5,184. So the chance of every set of kinds and of every course is
known, and scenes are drawn from the exact posterior, whatever was taken away.
"""

from __future__ import annotations

from itertools import combinations, product
from math import comb

import numpy as np

from dataset.synthetic.world import (
    AGREE,
    COUNT,
    IN_VIEW,
    KINDS,
    LEVELS,
    ONSETS,
    PLAYING,
    REVERB,
    SEEN_PAIRS,
    SOUNDING,
    Scenes,
    complete_scenes,
)
from dataset.types import AUDIO, VISUAL

SEEN, HEARD = ("playing", "motion", "tempo", "seen_onset"), ("sounding", "loudness", "rhythm", "onset")
ONE = ((False, True), range(LEVELS), range(LEVELS), range(ONSETS))
COURSES = dict(zip(SEEN + HEARD, map(np.array, zip(*product(*ONE, *ONE), strict=True)), strict=True))    # (C,) each
SETS = np.array([[k in kinds for k in range(len(KINDS))] for n in range(1, len(COUNT) + 1)
                 for kinds in combinations(range(len(KINDS)), n)])                                       # (S, K)


def course_chances() -> np.ndarray:
    """The prior (C,) of every course."""
    plays, sounds = COURSES["playing"], COURSES["sounding"]
    rate = SOUNDING[plays.astype(int)]
    chances = np.where(plays, PLAYING, 1 - PLAYING) * np.where(sounds, rate, 1 - rate)
    for seen, heard, levels in SEEN_PAIRS:
        linked = (1 - AGREE) / levels + AGREE * (COURSES[seen] == COURSES[heard])
        chances = chances / levels * np.where(plays, linked, 1 / levels)
    return chances


def fitting(names: tuple[str, ...], source: dict[str, np.ndarray], segments: np.ndarray) -> np.ndarray:
    """Which courses (C,) show in `segments` what `source` (values of one) does; `names`: of `SEEN`
    or `HEARD`. Where nothing has begun its levels are not read.
    """
    active, *levels, onset = names
    begun = source[active] & (source[onset] <= segments)
    fits = ((COURSES[active][:, None] & (COURSES[onset][:, None] <= segments)) == begun).all(axis=1)
    for name in levels if begun.any() else ():
        fits &= COURSES[name] == source[name]
    return fits


def given_observed(scene: Scenes, presence: np.ndarray, size: int, rng: np.random.Generator) -> Scenes:
    """`size` scenes from the posterior of what `presence` (T, 2) bool leaves of `scene` (one)."""
    hears, sees = np.flatnonzero(presence[:, AUDIO]), np.flatnonzero(presence[:, VISUAL])
    heard, seen = scene.heard[0], scene.seen[0]
    chances = np.tile(course_chances(), (len(KINDS), 1))                                            # (K, C)
    for kind in range(len(KINDS)):
        source = {name: getattr(scene, name)[0, kind] for name in SEEN + HEARD} | {"sounding": heard[kind]}
        chances[kind] *= fitting(HEARD, source, hears)
        if len(sees):
            chances[kind] *= (IN_VIEW * fitting(SEEN, source, sees)) if seen[kind] else 1 - IN_VIEW
    noticed = heard & (scene.onset[0] <= max(hears, default=-1)) | seen & bool(len(sees))
    drawn = complete_scenes(draw_sets(chances.sum(axis=1), noticed, size, rng), rng)
    for kind, weights in enumerate(chances):
        course = rng.choice(len(weights), size, p=weights / weights.sum())
        for name in SEEN + HEARD:
            getattr(drawn, name)[:, kind] = COURSES[name][course]
    set_place(drawn, scene, bool(len(hears)), bool(len(sees)), rng)
    return drawn


def draw_sets(evidence: np.ndarray, noticed: np.ndarray, size: int, rng: np.random.Generator) -> np.ndarray:
    """(size, K) existence. `evidence` (K,): the chance of what is observed of a kind that is there;
    of one that is not there nothing is `noticed` (K,).
    """
    count = SETS.sum(axis=1)
    prior = COUNT[count - 1] / [comb(len(KINDS), n) for n in count]
    weights = prior * np.where(SETS, evidence, ~noticed).prod(axis=1)
    return SETS[rng.choice(len(SETS), size, p=weights / weights.sum())]


def set_place(drawn: Scenes, scene: Scenes, hears: bool, sees: bool, rng: np.random.Generator) -> None:
    """Give `drawn` what any segment shows: who is where, the room; what any lets hear: the room, a
    voice.
    """
    size, seen = len(drawn), scene.seen[0]
    if sees:
        drawn.in_view[:], drawn.indoor[:] = seen, scene.indoor[0]
        for name in ("column", "row"):
            getattr(drawn, name)[:, seen] = getattr(scene, name)[0, seen]
        drawn.reverb[:] = rng.random(size) < REVERB[int(scene.indoor[0])]
    if hears:
        drawn.reverb[:], drawn.voice[:] = scene.reverb[0], scene.voice[0]
    if hears and not sees:
        drawn.indoor[:] = rng.random(size) < REVERB[int(scene.reverb[0])]
