"""The answers beside each other, one column per state, and below them what the runs looked at."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np

from engine.answerer import Answer
from scripts.page.answers import STATES, Look, effective_slots
from scripts.page.benchmark import Posterior
from scripts.page.marks import FLOOR, ORACLE, RUN_COLOURS, bar, cells, escape, maps, note, page, slots, who

TOP = 4                      # answers shown of each
DISTANCE = ("Distance of what stands in for the missing: the length of the difference over that of the real feature; "
            "0 is the real one, 1 as far as zeros are.")
TITLES = dict(zip(STATES, ("Complete", "Without sound", "Without picture", "What the switches say"), strict=True))


@dataclass(frozen=True)
class Said:
    """What one run says in one state."""

    label: str
    answer: Answer
    look: Look
    distances: dict[str, dict[str, float]] = field(default_factory=dict)


@dataclass(frozen=True)
class Column:
    """One state: what is there, the runs, the oracle (None: not known for this question)."""

    state: str
    presence: np.ndarray
    runs: Sequence[Said]
    oracle: Posterior | None = None


def draw(columns: Sequence[Column], floor: str, right: str | None, grid: tuple[int, int],
         remarks: Sequence[str]) -> str:
    """All columns. `floor`: a sentence on it; `right`: the right answer where it is known; `grid`:
    of the visual map.
    """
    notes = "".join(map(note, dict.fromkeys(remarks)))
    truth = "" if right is None else f'<p>Right in this scene: <span class="right">{escape(right)}</span></p>'
    cards = "".join(card(column, floor, right) for column in columns)
    looks = "".join(look(said, grid, RUN_COLOURS[i]) for i, said in enumerate(columns[-1].runs))
    heading = "<h4 style='margin-top:16px'>What the runs looked at, as switched</h4>" if looks else ""
    legend = f'<p class="small">{DISTANCE}</p>' if any(s.distances for c in columns for s in c.runs) else ""
    return page(f'{notes}{truth}<div class="columns">{cards}</div>{legend}{heading}<div class="looks">{looks}</div>')


def card(column: Column, floor: str, right: str | None) -> str:
    parts = [f"<h4>{TITLES[column.state]}</h4>", f'<div class="small">{there(column.presence)}</div>']
    for said, colour in zip(column.runs, RUN_COLOURS, strict=False):
        parts.append(who(said.label, colour))
        parts += [bar(name, share, colour, name == right) for name, share in said.answer.best[:TOP]]
        parts += [f'<div class="small">{escape(line)}</div>' for line in distance_lines(said.distances)]
    if column.oracle is not None:
        parts.append(who(f"Bayes oracle{spread(column.oracle)}", ORACLE))
        parts += [bar(name, share, ORACLE, name == right) for name, share in column.oracle.best[:TOP]]
        if not column.oracle.best:
            parts.append('<div class="small">Nothing that fits what is left leads to this question.</div>')
    parts.append(who("Floor", FLOOR) + f'<div class="small">{escape(floor)}</div>')
    own = " own" if column.state == STATES[-1] else ""
    return f'<div class="card{own}" data-state="{column.state}">{"".join(parts)}</div>'


def there(presence: np.ndarray) -> str:
    """What is left of (T, 2), in words."""
    total, words = len(presence), []
    for count, name in zip(presence.sum(axis=0), ("sound", "picture"), strict=True):
        words.append(f"{name} {'whole' if count == total else 'missing' if not count else f'{count} of {total}'}")
    return ", ".join(words)


def spread(oracle: Posterior) -> str:
    return f" (\N{PLUS-MINUS SIGN} {100 * oracle.error:.1f})" if oracle.error >= 0.0005 else ""


def distance_lines(distances: dict[str, dict[str, float]]) -> list[str]:
    """How far each stage lies from the real feature."""
    names = {"audio": "sound", "visual": "picture"}
    return [f"{stage} {names[modality]}: distance {value:.2f}"
            for stage, values in distances.items() for modality, value in values.items() if np.isfinite(value)]


def look(said: Said, grid: tuple[int, int], colour: str) -> str:
    """When and where a run looked, which slots it addressed."""
    parts = [who(said.label, colour)]
    names = {"audio": "sound", "visual": "picture"}
    for key, name in names.items():
        if key in said.look.attention:
            parts.append(f'<div>when, {name}: {cells(said.look.attention[key])} <span class="small">% of its '
                         "attention</span></div>")
    if "space" in said.look.attention:
        space = said.look.attention["space"]
        parts.append(f"<div>where, by segment: {100 * space.min():.1f} (light) to {100 * space.max():.1f} % a "
                     f"place</div>{maps(space, grid)}")
    if not said.look.attention:
        parts.append('<div class="small">This backbone has no attention over segments or places.</div>')
    for key, weights in said.look.slots.items():
        parts.append(f"<div>slots that recall the {names[key]}: {effective_slots(weights):.1f} of {weights.shape[1]} "
                     f"in effect, the largest {100 * weights.mean(axis=0).max():.1f} %</div>{slots(weights)}")
    return f'<div class="card">{"".join(parts)}</div>'
