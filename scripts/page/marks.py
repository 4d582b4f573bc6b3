"""Pieces of HTML and SVG that both tabs draw with; all text from outside goes through `escape`."""

from __future__ import annotations

from html import escape

import numpy as np

FIRST, SECOND, ORACLE, FLOOR = "#4f46e5", "#0d9488", "#d97706", "#8b8f98"      # who answers
RUN_COLOURS = (FIRST, SECOND)
HEAT = (234, 88, 12)


def page(body: str) -> str:
    """What a gr.HTML shows."""
    return f'<div class="avqa">{body}</div>'


def note(text: str) -> str:
    """One sentence to the reader."""
    return f'<div class="note" role="status">{escape(text)}</div>'


def bar(name: str, share: float, colour: str, mark: bool = False) -> str:
    """An answer with its probability; `mark`: it is the right one."""
    tick = ' <span class="right" style="position:static">&#10003;</span>' if mark else ""
    return (f'<div class="bar"><i style="width:{100 * share:.1f}%;background:{colour}"></i>'
            f"<span>{escape(name)}{tick}</span><b>{100 * share:.1f} %</b></div>")


def heat(share: float) -> str:
    """The colour of a share of the largest one."""
    return f"rgba({HEAT[0]},{HEAT[1]},{HEAT[2]},{min(max(share, 0.0), 1.0):.2f})"


def cells(weights: np.ndarray) -> str:
    """The weights (T,) of the segments in percent."""
    top = max(float(weights.max()), 1e-9)
    shown = "".join(f'<i style="background:{heat(w / top * 0.8)}">{100 * w:.0f}</i>' for w in weights)
    return f'<span class="cells">{shown}</span>'


def maps(weights: np.ndarray, grid: tuple[int, int]) -> str:
    """The weights (T, N) of the places of every segment, from the smallest to the largest."""
    low, drawn = float(weights.min()), []
    span = max(float(weights.max()) - low, 1e-9)
    for segment, row in enumerate(weights, 1):
        squares = "".join(f'<i style="background:{heat((w - low) / span)}" title="{100 * w:.1f} %"></i>' for w in row)
        drawn.append(f'<div><div class="map" style="--cell:{max(3, 60 // grid[1])}px;gap:{int(grid[1] < 8)}px;'
                     f'grid-template-columns:repeat({grid[1]},auto)">{squares}</div>'
                     f'<div class="small" style="text-align:center">{segment}</div></div>')
    return f'<div class="maps">{"".join(drawn)}</div>'


def slots(weights: np.ndarray) -> str:
    """The weights (n, K) of the slots, a mean over segments, against the largest."""
    mean = weights.mean(axis=0)
    top = max(float(mean.max()), 1e-9)
    return '<div class="slots">' + "".join(f'<i style="background:{heat(w / top)}"></i>' for w in mean) + "</div>"


def who(label: str, colour: str, name: bool = True) -> str:
    """Who answers; of a run what it is, and below it its name."""
    title, _, folder = label.partition(": ")
    below = f'<div class="small folder" title="{escape(folder)}">{escape(folder)}</div>' if folder and name else ""
    return f'<div class="who" style="color:{colour}">{escape(title)}</div>{below}'
