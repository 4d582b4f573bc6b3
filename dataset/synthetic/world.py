"""The world of the embedded benchmark: scenes whose sound and picture correlate, no more.

A scene holds one to three of six kinds of instruments, each at most once. A source may be out of
view, may sound without being seen to play, and may play without sounding; what is heard of it
(loudness, rhythm, onset) usually, not always, equals what is seen (motion, tempo, onset of the
motion). The picture also shows whether the place is indoor, which the sound's reverberation mostly
betrays; a voice-over is heard only.

Sources are independent given which kinds are there, so the scenes that fit what is seen, or what is
heard, can be drawn exactly; the oracle rests on that.
"""

from __future__ import annotations

from dataclasses import dataclass, fields
from math import comb

import numpy as np

KINDS = ("accordion", "cello", "drum", "flute", "piano", "violin")
COLUMNS = ("left", "middle", "right")
ROWS, LEVELS, ONSETS, SEGMENTS = 2, 3, 4, 6
COUNT = np.array([0.3, 0.4, 0.3])                # of one to three sources
IN_VIEW, PLAYING, AGREE = 0.88, 0.7, 0.85
SOUNDING = np.array([0.10, 0.95])                # if not playing, if playing
REVERB = np.array([0.15, 0.85])                  # heard as indoor, if outdoor, if indoor
VOICE = 0.4


def column_probability() -> np.ndarray:
    """(K, 3): each kind prefers one column with probability 0.75."""
    table = np.full((len(KINDS), len(COLUMNS)), 0.125)
    table[np.arange(len(KINDS)), np.arange(len(KINDS)) % len(COLUMNS)] = 0.75
    return table


@dataclass
class Scenes:
    """S scenes, arrays (S, K) per kind or (S,). Values of an absent kind mean nothing."""

    exists: np.ndarray       # bool
    in_view: np.ndarray      # bool
    column: np.ndarray       # 0..2
    row: np.ndarray          # 0..1
    playing: np.ndarray      # bool, as seen
    motion: np.ndarray       # 0..2, as seen of a playing source
    tempo: np.ndarray        # 0..2, as seen of a playing source
    seen_onset: np.ndarray   # 0..3, when the motion starts
    sounding: np.ndarray     # bool, as heard
    loudness: np.ndarray     # 0..2, as heard of a sounding source
    rhythm: np.ndarray       # 0..2, as heard
    onset: np.ndarray        # 0..3, when the sound starts
    indoor: np.ndarray       # bool, as seen
    reverb: np.ndarray       # bool, as heard
    voice: np.ndarray        # bool, as heard

    @property
    def seen(self) -> np.ndarray:
        return self.exists & self.in_view

    @property
    def heard(self) -> np.ndarray:
        return self.exists & self.sounding

    @property
    def seen_and_heard(self) -> np.ndarray:
        return self.seen & self.heard

    @property
    def moving(self) -> np.ndarray:
        return self.seen & self.playing

    def __len__(self) -> int:
        return len(self.exists)

    def __getitem__(self, index) -> Scenes:
        return Scenes(**{f.name: getattr(self, f.name)[index] for f in fields(self)})


SEEN_PAIRS = (("motion", "loudness", LEVELS), ("tempo", "rhythm", LEVELS), ("seen_onset", "onset", ONSETS))


def sample(size: int, rng: np.random.Generator) -> Scenes:
    """`size` scenes from the prior."""
    count = rng.choice(len(COUNT), size, p=COUNT) + 1
    exists = rng.random((size, len(KINDS))).argsort(axis=1).argsort(axis=1) < count[:, None]
    return complete_scenes(exists, rng)


def complete_scenes(exists: np.ndarray, rng: np.random.Generator) -> Scenes:
    """Scenes with the given kinds (S, K), all else from the prior."""
    size, kinds = shape = exists.shape
    cumulative = column_probability().cumsum(axis=1)
    playing = rng.random(shape) < PLAYING
    seen = {name: rng.integers(levels, size=shape) for name, _, levels in SEEN_PAIRS}
    sounding = rng.random(shape) < SOUNDING[playing.astype(int)]
    heard = {name: agree(seen[other], playing, levels, rng) for other, name, levels in SEEN_PAIRS}
    indoor = rng.random(size) < 0.5
    return Scenes(
        exists=exists, in_view=rng.random(shape) < IN_VIEW,
        column=(rng.random((*shape, 1)) > cumulative[None]).sum(axis=-1), row=rng.integers(ROWS, size=shape),
        playing=playing, **seen, sounding=sounding, **heard,
        indoor=indoor, reverb=rng.random(size) < REVERB[indoor.astype(int)], voice=rng.random(size) < VOICE,
    )


def agree(other: np.ndarray, linked: np.ndarray, levels: int, rng: np.random.Generator) -> np.ndarray:
    """A level equal to `other` with probability 0.85 where `linked`, else uniform.

    The rule is its own inverse: with uniform levels, either side is drawn from the other alike.
    """
    same = linked & (rng.random(other.shape) < AGREE)
    return np.where(same, other, rng.integers(levels, size=other.shape))


def add_unknown(known: np.ndarray, unknown_rate: float, size: int, rng: np.random.Generator) -> np.ndarray:
    """(size, K) existence: kinds `known` (K,) are there, others unnoticed with `unknown_rate`.

    P(n) times the chance that a random n-subset holds the k known ones, C(K-k, n-k) / C(K, n),
    times the rate per unnoticed source.
    """
    kinds, k = len(known), int(known.sum())
    weights = np.zeros(len(COUNT) + 1)
    for n in range(max(k, 1), len(COUNT) + 1):
        weights[n] = COUNT[n - 1] * comb(kinds - k, n - k) / comb(kinds, n) * unknown_rate ** (n - k)
    extra = rng.choice(len(weights), size, p=weights / weights.sum()) - k
    order = rng.random((size, kinds))
    order[:, known] = 2.0
    return known | (order.argsort(axis=1).argsort(axis=1) < extra[:, None])


def given_seen(scene: Scenes, size: int, rng: np.random.Generator) -> Scenes:
    """`size` scenes from the posterior of what is seen of `scene` (one scene)."""
    seen = scene.seen[0]
    drawn = complete_scenes(add_unknown(seen, 1 - IN_VIEW, size, rng), rng)
    drawn.in_view[:] = seen                                  # what is not seen is out of view, or not there
    for name in ("column", "row", "playing", *(pair[0] for pair in SEEN_PAIRS)):
        getattr(drawn, name)[:, seen] = getattr(scene, name)[0, seen]
    drawn.indoor[:] = scene.indoor[0]
    rate = SOUNDING[drawn.playing.astype(int)]
    drawn.sounding[:] = rng.random(rate.shape) < rate
    for other, name, levels in SEEN_PAIRS:
        getattr(drawn, name)[:] = agree(getattr(drawn, other), drawn.playing, levels, rng)
    drawn.reverb[:] = rng.random(size) < REVERB[int(scene.indoor[0])]
    return drawn


def given_heard(scene: Scenes, size: int, rng: np.random.Generator) -> Scenes:
    """`size` scenes from the posterior of what is heard of `scene` (one scene)."""
    heard = scene.heard[0]
    silent_rate = PLAYING * (1 - SOUNDING[1]) + (1 - PLAYING) * (1 - SOUNDING[0])
    drawn = complete_scenes(add_unknown(heard, silent_rate, size, rng), rng)
    drawn.sounding[:] = heard
    plays_if_heard = PLAYING * SOUNDING[1] / (1 - silent_rate)
    plays_if_silent = PLAYING * (1 - SOUNDING[1]) / silent_rate
    drawn.playing[:] = rng.random(drawn.playing.shape) < np.where(heard, plays_if_heard, plays_if_silent)
    for seen_name, name, levels in SEEN_PAIRS:
        getattr(drawn, name)[:, heard] = getattr(scene, name)[0, heard]
        back = agree(getattr(drawn, name), drawn.playing, levels, rng)
        getattr(drawn, seen_name)[:, heard] = back[:, heard]
    drawn.reverb[:], drawn.voice[:] = scene.reverb[0], scene.voice[0]
    drawn.indoor[:] = rng.random(size) < (REVERB[1] if scene.reverb[0] else 1 - REVERB[1])
    return drawn
