"""The 33 question templates of MUSIC-AVQA, word for word, and what each asks of a scene.

A template's `ask` gives, for S scenes and one choice of values, the weight with which that choice
is asked (0: not applicable; balanced so that answers do not pile up) and the answer. Which template
is asked never depends on the scene; which values are, does, and the oracle takes that into account.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from itertools import permutations, product
from operator import attrgetter

import numpy as np

from dataset.synthetic.world import COLUMNS, KINDS, ONSETS, Scenes

NUMBERS = ("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten", "more than ten")
ANSWERS = (*KINDS, *NUMBERS, "yes", "no", *COLUMNS, "indoor", "outdoor", "simultaneously")
INDEX = {answer: i for i, answer in enumerate(ANSWERS)}
ZERO, LEFT = INDEX["zero"], INDEX["left"]
FILLS = {
    "Object": KINDS, "LR": COLUMNS, "LRer": ("leftest", "rightest"), "LL": ("loudest", "lowest"),
    "FL": ("first", "last"), "TH": ("first", "second", "third", "fourth", "fifth"), "BA": ("before", "after"),
}
Asked = tuple[np.ndarray, np.ndarray]            # weights (S,) float or bool, answers (S,) index into ANSWERS


@dataclass(frozen=True)
class Template:
    """`type` as "Audio/Counting", the text as annotated, the value choices and what they ask."""

    type: str
    text: str
    choices: tuple[tuple[str, ...], ...] = ((),)
    ask: Callable[..., Asked] | None = None      # None: this world cannot ask it


def yes(flags: np.ndarray) -> np.ndarray:
    return np.where(flags, INDEX["yes"], INDEX["no"])


def ones(scenes: Scenes) -> np.ndarray:
    return np.ones(len(scenes))


def only(mask: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Whether exactly one kind of (S, K) is marked, and which."""
    return mask.sum(axis=1) == 1, mask.argmax(axis=1)


def at(values: np.ndarray, kinds: np.ndarray) -> np.ndarray:
    """`values` (S, K) at one kind per scene."""
    return values[np.arange(len(values)), kinds]


def count(mask_of: Callable[[Scenes], np.ndarray]):
    return lambda s: (ones(s), ZERO + mask_of(s).sum(axis=1))


def one_of_kind(mask_of: Callable[[Scenes], np.ndarray], favour: float, answer=yes):
    """Asked of any kind, of a marked one `favour` times as often."""
    def ask(s: Scenes, name: str) -> Asked:
        marked = mask_of(s)[:, KINDS.index(name)]
        return np.where(marked, favour, 1.0), answer(marked)
    return ask


def both_of(mask_of: Callable[[Scenes], np.ndarray], favour: float):
    def ask(s: Scenes, first: str, second: str) -> Asked:
        mask = mask_of(s)
        both = mask[:, KINDS.index(first)] & mask[:, KINDS.index(second)]
        return np.where(both, favour, 1.0), yes(both)
    return ask


def compare_heard(more: Callable[[Scenes], np.ndarray]):
    """Two sounding kinds that differ in `more`."""
    def ask(s: Scenes, first: str, second: str) -> Asked:
        a, b = KINDS.index(first), KINDS.index(second)
        values = more(s)
        asked = s.heard[:, a] & s.heard[:, b] & (values[:, a] != values[:, b])
        return asked, yes(values[:, a] > values[:, b])
    return ask


def compare_placed(more: Callable[[Scenes], np.ndarray]):
    """Two kinds named with the columns in which they are seen."""
    def ask(s: Scenes, first: str, left: str, second: str, right: str) -> Asked:
        a, b = KINDS.index(first), KINDS.index(second)
        weight, answer = compare_heard(more)(s, first, second)
        placed = s.seen[:, a] & s.seen[:, b] & (s.column[:, a] == COLUMNS.index(left))
        return weight * (placed & (s.column[:, b] == COLUMNS.index(right))), answer
    return ask


def compare_columns(more: Callable[[Scenes], np.ndarray]):
    """The only source seen in each of two columns; both sound and differ."""
    def ask(s: Scenes, left: str, right: str) -> Asked:
        one, a = only(s.seen & (s.column == COLUMNS.index(left)))
        two, b = only(s.seen & (s.column == COLUMNS.index(right)))
        values = more(s)
        asked = one & two & at(s.heard, a) & at(s.heard, b) & (at(values, a) != at(values, b))
        return asked, yes(at(values, a) > at(values, b))
    return ask


def beside(s: Scenes, anchor: np.ndarray, side: str) -> tuple[np.ndarray, np.ndarray]:
    """Whether one source alone is seen in the column beside `anchor` (S,), and which."""
    step = -1 if side == "left" else 1
    return only(s.seen & (s.column == (at(s.column, anchor) + step)[:, None]))


def neighbour(s: Scenes, side: str, name: str) -> Asked:
    anchor = np.full(len(s), KINDS.index(name))
    one, other = beside(s, anchor, side)
    return s.seen[:, KINDS.index(name)] & one, other


def outermost(s: Scenes, side: str) -> Asked:
    column = np.where(s.seen, s.column, 9 if side == "leftest" else -9)
    edge = column.min(axis=1) if side == "leftest" else column.max(axis=1)
    one, which = only(s.seen & (s.column == edge[:, None]))
    return one, which


def always(s: Scenes, name: str) -> Asked:
    k = KINDS.index(name)
    return s.seen[:, k], yes(s.heard[:, k] & (s.onset[:, k] == 0))


def from_the_video(s: Scenes) -> Asked:
    one, which = only(s.heard)
    return one, yes(at(s.seen, which))


def extreme(s: Scenes, values: np.ndarray, highest: bool) -> tuple[np.ndarray, np.ndarray]:
    """Whether one of several sounding sources has the highest or lowest `values`, and which."""
    ranked = np.where(s.heard, values, -9 if highest else 9)
    edge = ranked.max(axis=1) if highest else ranked.min(axis=1)
    one, which = only(s.heard & (values == edge[:, None]))
    return one & (s.heard.sum(axis=1) > 1), which


def where_extreme(values_of: Callable[[Scenes], np.ndarray], highest: str):
    """The column of the sounding source with the highest values, or the lowest if not `highest`."""
    def ask(s: Scenes, which: str) -> Asked:
        one, source = extreme(s, values_of(s), which == highest)
        return one & at(s.seen, source), LEFT + at(s.column, source)
    return ask


def onset_in_column(s: Scenes, which: str, column: str) -> Asked:
    one, source = extreme(s, s.onset, which == "last")
    there = at(s.column, source) == COLUMNS.index(column)
    return (one & at(s.seen, source)) * np.where(there, 2.0, 1.0), yes(there)


def beside_onset(s: Scenes, side: str, which: str) -> Asked:
    one, source = extreme(s, s.onset, which == "last")
    near, other = beside(s, source, side)
    return one & at(s.seen, source) & near, other


def same_time(s: Scenes, name: str) -> Asked:
    k = KINDS.index(name)
    others = s.heard & (s.onset == s.onset[:, [k]])
    others[:, k] = False
    one, which = only(others)
    return s.heard[:, k] & one, which


def entrance(s: Scenes, rank: str) -> Asked:
    """The n-th to come in, when no two sounding sources come in together."""
    position = FILLS["TH"].index(rank)
    distinct = np.ones(len(s), dtype=bool)
    for onset in range(ONSETS):
        distinct &= (s.heard & (s.onset == onset)).sum(axis=1) <= 1
    which = np.where(s.heard, s.onset, 9).argsort(axis=1, kind="stable")[:, position]
    return distinct & (s.heard.sum(axis=1) > max(position, 1)), which


def next_to(s: Scenes, order: str, name: str) -> Asked:
    """The only source that comes in next before or after the one named."""
    k = KINDS.index(name)
    gap = (s.onset - s.onset[:, [k]]) * (1 if order == "after" else -1)
    gap = np.where(s.heard & (gap > 0), gap, 9)
    one, which = only(gap == np.where(gap.min(axis=1) < 9, gap.min(axis=1), -1)[:, None])
    return s.heard[:, k] & one, which


def how_many(flags: np.ndarray) -> np.ndarray:
    return ZERO + flags


heard, seen, both = attrgetter("heard"), attrgetter("seen"), attrgetter("seen_and_heard")
OBJECT = tuple((k,) for k in KINDS)
PAIR = tuple(permutations(KINDS, 2))
SIDES = ("left", "right")
PLACED_PAIR = tuple((a, x, b, y) for a, b in PAIR for x, y in permutations(COLUMNS, 2))
TEMPLATES = (
    Template("Audio/Counting", "How many musical instruments were heard throughout the video?", ((),), count(heard)),
    Template("Audio/Counting", "Is there a <Object> sound?", OBJECT, one_of_kind(heard, 4)),
    Template("Audio/Counting", "Are there <Object> and <Object> sound? ", PAIR, both_of(heard, 12)),
    Template("Audio/Comparative", "Is the <Object> louder than the <Object>?", PAIR,
             compare_heard(lambda s: s.loudness)),
    Template("Audio/Comparative", "Is the <Object> more rhythmic than the <Object>?", PAIR,
             compare_heard(lambda s: s.rhythm)),
    Template("Audio/Comparative", "Is the <Object> playing longer than the <Object>?", PAIR,
             compare_heard(lambda s: -s.onset)),
    Template("Visual/Counting", "Are there <Object> and <Object> instruments in the video?", PAIR, both_of(seen, 12)),
    Template("Visual/Counting", "How many <Object> are in the entire video?", OBJECT, one_of_kind(seen, 4, how_many)),
    Template("Visual/Counting", "How many types of musical instruments appeared in the entire video?", ((),),
             count(seen)),
    Template("Visual/Counting", "Is there a <Object> in the entire video?", OBJECT, one_of_kind(seen, 4)),
    Template("Visual/Location", "Where is the performance?", ((),),
             lambda s: (ones(s), np.where(s.indoor, INDEX["indoor"], INDEX["outdoor"]))),
    Template("Visual/Location", "What is the instrument on the <LR> of <Object>?", tuple(product(SIDES, KINDS)),
             neighbour),
    Template("Visual/Location", "What kind of musical instrument is it?", ((),), lambda s: only(s.seen)),
    Template("Visual/Location", "What kind of instrument is the <LRer> instrument? ",
             tuple((v,) for v in FILLS["LRer"]), outermost),
    Template("Audio-Visual/Existential", "Is the <Object> in the video always playing?", OBJECT, always),
    Template("Audio-Visual/Existential", "Is there a voiceover?", ((),), lambda s: (ones(s), yes(s.voice))),
    Template("Audio-Visual/Existential", "Is this sound from the instrument in the video?", ((),), from_the_video),
    Template("Audio-Visual/Counting", "How many instruments are sounding in the video?", ((),), count(both)),
    Template("Audio-Visual/Counting", "How many types of musical instruments sound in the video?", ((),), count(heard)),
    Template("Audio-Visual/Counting", "How many instruments in the video did not sound from beginning to end?", ((),),
             count(lambda s: s.seen & ~s.heard)),
    Template("Audio-Visual/Counting", "How many sounding <Object> in the video\uff1f", OBJECT,
             one_of_kind(both, 5, how_many)),
    Template("Audio-Visual/Location", "Where is the <LL> instrument?", tuple((v,) for v in FILLS["LL"]),
             where_extreme(lambda s: s.loudness, "loudest")),
    Template("Audio-Visual/Location", "Is the <FL> sound coming from the <LR> instrument?",
             tuple(product(FILLS["FL"], COLUMNS)), onset_in_column),
    Template("Audio-Visual/Location", "What is the <LR> instrument of the <FL> sounding instrument?",
             tuple(product(SIDES, FILLS["FL"])), beside_onset),
    Template("Audio-Visual/Location", "Which is the musical instrument that sounds at the same time as the <Object>?",
             OBJECT, same_time),
    Template("Audio-Visual/Comparative", "Is the <Object> on the <LR> louder than the <Object> on the <LR>?",
             PLACED_PAIR, compare_placed(lambda s: s.loudness)),
    Template("Audio-Visual/Comparative", "Is the <Object> on the <LR> more rhythmic than the <Object> on the <LR>?",
             PLACED_PAIR, compare_placed(lambda s: s.rhythm)),
    Template("Audio-Visual/Comparative", "Is the instrument on the <LR> louder than the instrument on the <LR>?",
             tuple(permutations(COLUMNS, 2)), compare_columns(lambda s: s.loudness)),
    Template("Audio-Visual/Comparative", "Is the instrument on the <LR> more rhythmic than the instrument on the <LR>?",
             tuple(permutations(COLUMNS, 2)), compare_columns(lambda s: s.rhythm)),
    Template("Audio-Visual/Temporal", "What is the <TH> instrument that comes in?",
             tuple((v,) for v in FILLS["TH"][:3]), entrance),
    Template("Audio-Visual/Temporal", "Which instrument makes sounds <BA> the <Object>?",
             tuple(product(FILLS["BA"], KINDS)), next_to),
    Template("Audio-Visual/Temporal", "Where is the <FL> sounding instrument?", tuple((v,) for v in FILLS["FL"]),
             where_extreme(lambda s: s.onset, "last")),
    Template("Audio-Visual/Temporal", "Which <Object> makes the sound <FL>?"),     # needs two of one kind
)
ASKABLE = tuple(t for t in TEMPLATES if t.ask is not None)
