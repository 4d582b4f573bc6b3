"""The figures of a report, as wide as a column of a paper: curves with bands, and bars of the recovered gap."""

from __future__ import annotations

import math
import textwrap
from collections.abc import Callable
from pathlib import Path

import matplotlib
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from dataset.files import write_whole
from scripts.tables.collect import Table, mean, spread
from scripts.tables.grid import Mix
from scripts.tables.text import pretty

# Okabe and Ito (2008): told apart with every common form of colour blindness; markers, dashes and hatches tell them
# apart in grey as well.
COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000")
MARKERS = ("o", "s", "^", "D", "v", "P", "X")
DASHES = ("-", "--", "-.", ":", (0, (5, 1, 1, 1, 1, 1)), (0, (3, 2)), (0, (1, 2)))
HATCHES = ("", "////", "....", "xxxx")
STYLE = {
    "font.size": 8, "axes.titlesize": 8, "axes.labelsize": 8, "legend.fontsize": 7, "xtick.labelsize": 7,
    "ytick.labelsize": 7, "axes.spines.top": False, "axes.spines.right": False, "axes.linewidth": 0.6,
    "lines.linewidth": 1.2, "lines.markersize": 4, "hatch.linewidth": 0.5, "legend.frameon": False,
    "svg.fonttype": "none", "svg.hashsalt": "report", "grid.linewidth": 0.4, "grid.color": "0.85",
}
WIDTH = 3.3                      # inches
LABEL = 24                       # characters of a row's label on one line


def draw_all(table: Table, folder: Path) -> dict[str, str]:
    """Write every plot that the table calls for as PNG and SVG; returns the name of each file with its caption."""
    drawn = {}
    if table.grid.axis:
        drawn["curve"] = (draw_axis, f"Accuracy over {table.grid.axis.label}; bands: ± one standard deviation over seeds.")
    if table.grid.mixes:
        drawn["mix"] = (draw_mixes, "Expected accuracy over the share of questions, from the two ends of each curve; "
                                    "bands: ± one standard deviation over seeds.")
    drawn["bars"] = (draw_bars, f"{bar_quantity(table)[0]}; whiskers: ± one standard deviation over seeds, "
                               "none where there is one seed.")
    with matplotlib.rc_context(STYLE):
        for name, (draw, _) in drawn.items():
            save(draw(table), folder / name)
    return {name: caption for name, (_, caption) in drawn.items()}


def save(figure: Figure, stem: Path) -> None:
    for kind, metadata in (("png", None), ("svg", {"Date": None})):
        write_whole(stem.with_suffix(f".{kind}"), lambda path, kind=kind, metadata=metadata: figure.savefig(
            path, format=kind, dpi=300, metadata=metadata))


def wrapped(label: str) -> str:
    return "\n".join(textwrap.wrap(label, LABEL, max_lines=3, placeholder=" ..."))


def line_style(index: int) -> dict:
    return {"color": COLOURS[index % len(COLOURS)], "marker": MARKERS[index % len(MARKERS)],
            "linestyle": DASHES[index % len(DASHES)]}


def draw_band(axes: Axes, x: list[float], by_point: list[list[float]], **options) -> None:
    """A curve of means with a band of one standard deviation; `by_point`: the values over seeds at every x."""
    means = [mean(values) for values in by_point]
    widths = [spread(values) or 0.0 for values in by_point]
    axes.plot(x, means, **options)
    axes.fill_between(x, [m - w for m, w in zip(means, widths, strict=True)],
                      [m + w for m, w in zip(means, widths, strict=True)], color=options["color"], alpha=0.18, linewidth=0)


def whisker(values: list[float]) -> float:
    """The standard deviation; NaN, which is not drawn, of a single seed, where none is known."""
    deviation = spread(values)
    return math.nan if deviation is None else deviation


def draw_axis(table: Table) -> Figure:
    """One curve per scenario over the values of the axis; the paper's points hollow; other rows as levels."""
    axis = table.grid.axis
    figure = Figure(figsize=(WIDTH, 2.9), layout="constrained")
    axes = figure.add_subplot()
    places = sorted((x, row) for row, x in axis.values.items() if row in table.cells)
    for index, scenario in enumerate(table.scenarios):
        style = line_style(index)
        cells = [(x, table.cells[row][scenario]) for x, row in places if scenario in table.cells[row]]
        if cells:
            draw_band(axes, [x for x, _ in cells], [list(c.values.values()) for _, c in cells], label=pretty(scenario),
                      **style)
        printed = [(x, c.published.overall) for x, c in cells if c.published and c.published.overall is not None]
        if printed:
            axes.plot(*zip(*printed, strict=True), label=f"{pretty(scenario)}, paper", mfc="white", linewidth=0.7,
                      **{**style, "linestyle": ":"})
    draw_levels(table, axes)
    axes.set_xticks([x for x, _ in places])
    axes.set_xlabel(axis.label)
    axes.set_ylabel("accuracy (%)")
    axes.grid(axis="y")
    figure.legend(*axes.get_legend_handles_labels(), loc="outside lower center", ncols=2, handlelength=2.6)
    return figure


def draw_levels(table: Table, axes: Axes) -> None:
    """Rows without a place on the axis: one thin line per scenario, the row's key at its right end."""
    levels = sorted((mean(cells[scenario].values.values()), index, row) for row, cells in table.cells.items()
                    if row not in table.grid.axis.values
                    for index, scenario in enumerate(table.scenarios) if scenario in cells)
    for level, index, _ in levels:
        axes.axhline(level, **{**line_style(index), "marker": None}, linewidth=0.6, alpha=0.7)
    low, high = axes.get_ylim()
    apart, place = 0.045 * (high - low), low - (high - low)
    for level, index, row in levels:
        place = max(level, place + apart)                     # names do not cover each other
        axes.annotate(row, (1, place), xycoords=("axes fraction", "data"), xytext=(2, 0), fontsize=6, va="center",
                      textcoords="offset points", color=COLOURS[index % len(COLOURS)])


def mixed(table: Table, mix: Mix, row: str, share: float) -> list[float]:
    """Per seed the expected accuracy when `share` of the questions is in the scenario `mix.end`."""
    start, end = table.cells[row][mix.start].values, table.cells[row][mix.end].values
    return [(1 - share) * start[seed] + share * end[seed] for seed in start if seed in end]


def draw_mixes(table: Table) -> Figure:
    """One panel per mix, one curve per row."""
    mixes, shares = table.grid.mixes, [i / 10 for i in range(11)]
    figure = Figure(figsize=(WIDTH, 0.5 + 2.0 * len(mixes)), layout="constrained")
    panels = figure.subplots(len(mixes), squeeze=False)[:, 0]
    for axes, mix in zip(panels, mixes, strict=True):
        for index, (row, cells) in enumerate(table.cells.items()):
            if mix.start in cells and mix.end in cells and mixed(table, mix, row, 0):
                draw_band(axes, [100 * s for s in shares], [mixed(table, mix, row, s) for s in shares],
                          label=wrapped(table.grid.rows[row].label), markevery=2, **line_style(index))
        axes.set_xlabel(textwrap.fill(mix.label, 2 * LABEL))
        axes.set_ylabel("accuracy (%)")
        axes.grid(axis="y")
    handles, labels = panels[0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside lower center", ncols=2, handlelength=2.6)
    return figure


def bar_quantity(table: Table) -> tuple[str, Callable]:
    """What the bars show: the share of the recoverable gap, or accuracy where the data have no oracle."""
    if any(cell.shares for cells in table.cells.values() for cell in cells.values()):
        return "Share of the recoverable gap (%)", lambda cell: cell.shares
    return "Accuracy (%)", lambda cell: list(cell.values.values())


def draw_bars(table: Table) -> Figure:
    """Rows from top to bottom, one bar per scenario in each."""
    title, quantity = bar_quantity(table)
    rows, scenarios = list(table.cells), table.scenarios
    figure = Figure(figsize=(WIDTH, 0.75 + 0.42 * len(rows)), layout="constrained")
    axes = figure.add_subplot()
    height = 0.8 / len(scenarios)
    for index, scenario in enumerate(scenarios):
        bars = [(i, quantity(table.cells[row][scenario])) for i, row in enumerate(rows) if scenario in table.cells[row]]
        bars = [(i + (index + 0.5) * height - 0.4, values) for i, values in bars if values]
        axes.barh([y for y, _ in bars], [mean(values) for _, values in bars], height, label=pretty(scenario),
                  color=COLOURS[index % len(COLOURS)], hatch=HATCHES[index % len(HATCHES)], edgecolor="white",
                  linewidth=0.3, xerr=[whisker(values) for _, values in bars],
                  error_kw={"elinewidth": 0.7, "capsize": 1.5, "capthick": 0.7})
    axes.axvline(0, color="black", linewidth=0.6)
    axes.set_yticks(range(len(rows)), [wrapped(table.grid.rows[row].label) for row in rows])
    axes.set_ylim(len(rows) - 0.5, -0.5)
    axes.spines["left"].set_visible(False)             # the line at zero stands for it
    axes.set_xlabel(title.lower())
    axes.tick_params(axis="y", length=0)
    axes.grid(axis="x")
    axes.set_axisbelow(True)
    figure.legend(loc="outside lower center", ncols=len(scenarios), handlelength=1.4, columnspacing=1.0)
    return figure
