"""The figures of a report: curves with bands, and bars of the recovered gap."""

from __future__ import annotations

import math
import textwrap
from pathlib import Path
from typing import Any

import matplotlib
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from dataset.files import write_whole
from scripts.tables.grid import Axis, Grid, Mix, RowCurves, ScenarioCurves
from scripts.tables.text import moments, pretty, scenarios_of

# Okabe and Ito (2008): distinct with every common form of colour blindness; markers, dashes and
# hatches are distinct in grey as well.
COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000")
MARKERS = ("o", "s", "^", "D", "v", "P", "X")
DASHES = ("-", "--", "-.", ":", (0, (5, 1, 1, 1, 1, 1)), (0, (3, 2)), (0, (1, 2)))
HATCHES = ("", "////", "\\\\\\\\", "xxxx")   # no dots: they make an SVG ten times as large
STYLE = {
    "font.size": 8, "axes.titlesize": 8, "axes.labelsize": 8, "legend.fontsize": 7, "xtick.labelsize": 7,
    "ytick.labelsize": 7, "axes.spines.top": False, "axes.spines.right": False, "axes.linewidth": 0.6,
    "lines.linewidth": 1.2, "lines.markersize": 4, "hatch.linewidth": 0.5, "legend.frameon": False,
    "svg.fonttype": "none", "svg.hashsalt": "report", "grid.linewidth": 0.4, "grid.color": "0.85",
}
WIDTH = 3.3                      # inches
LABEL = 24                       # characters of a row's label on one line
Report = dict[str, Any]


def draw_all(report: Report, grid: Grid, folder: Path) -> dict[str, str]:
    """Write the table's plots as PNG and SVG; returns the name of each file with its caption."""
    captions = {}
    with matplotlib.rc_context(STYLE):
        if grid.axis:
            save(draw_axis(report, grid.axis), folder / "curve")
            captions["curve"] = f"Accuracy over {grid.axis.label}; bands: ± one standard deviation over seeds."
        if grid.mixes:
            save(draw_panels(over_mixes(report, grid.mixes)), folder / "mix")
            captions["mix"] = ("Expected accuracy over the share of questions, from the two ends of each curve; "
                               "bands: ± one standard deviation over seeds.")
        if grid.row_curves:
            save(draw_panels(over_rows(report, grid.row_curves)), folder / "rows")
            captions["rows"] = f"Accuracy over {grid.row_curves.label}; bands: ± one standard deviation over seeds."
        if grid.scenario_curves:
            save(draw_panels(over_scenarios(report, grid.scenario_curves)), folder / "scenarios")
            captions["scenarios"] = "Accuracy over what is missing; bands: ± one standard deviation over seeds."
        bars = {"bars": bar_quantity(report)}
        if grid.calibration:
            bars["calibration"] = "Expected calibration error (%)", "ece"
        for name, (title, key) in bars.items():
            save(draw_bars(report, title, key), folder / name)
            captions[name] = (f"{title}; whiskers: ± one standard deviation over seeds, none where there is one seed.")
    return captions


def save(figure: Figure, stem: Path) -> None:
    for kind, metadata in (("png", None), ("svg", {"Date": None})):
        write_whole(stem.with_suffix(f".{kind}"), lambda path, kind=kind, metadata=metadata: figure.savefig(
            path, format=kind, dpi=300, metadata=metadata))


def wrapped(label: str) -> str:
    return "\n".join(textwrap.wrap(label, LABEL, max_lines=3, placeholder=" ..."))


def line_style(index: int) -> dict:
    return {"color": COLOURS[index % len(COLOURS)], "marker": MARKERS[index % len(MARKERS)],
            "linestyle": DASHES[index % len(DASHES)]}


def draw_band(axes: Axes, x: list[float], points: list[dict], **options) -> None:
    """A curve of means with a band of one standard deviation; `points`: both, at every x."""
    means, widths = [p["mean"] for p in points], [p["std"] or 0.0 for p in points]
    axes.plot(x, means, **options)
    low, high = ([m + sign * w for m, w in zip(means, widths, strict=True)] for sign in (-1, 1))
    axes.fill_between(x, low, high, color=options["color"], alpha=0.18, linewidth=0)


def draw_axis(report: Report, axis: Axis) -> Figure:
    """One curve per scenario over the axis; the paper's points are hollow, other rows levels."""
    figure = Figure(figsize=(WIDTH, 2.9), layout="constrained")
    axes = figure.add_subplot()
    rows = {key: row["scenarios"] for key, row in report["rows"].items()}
    places = sorted((x, row) for row, x in axis.values.items() if row in rows)
    for index, scenario in enumerate(scenarios_of(report["rows"])):
        style = line_style(index)
        cells = [(x, rows[row][scenario]) for x, row in places if scenario in rows[row]]
        if cells:
            draw_band(axes, [x for x, _ in cells], [cell for _, cell in cells], label=pretty(scenario), **style)
        printed = [(x, (cell["published"] or {}).get("overall")) for x, cell in cells]
        printed = [(x, value) for x, value in printed if value is not None]
        if printed:
            axes.plot(*zip(*printed, strict=True), label=f"{pretty(scenario)}, paper", mfc="white", linewidth=0.7,
                      **{**style, "linestyle": ":"})
    others = {row: cells for row, cells in rows.items() if row not in axis.values}
    draw_levels(axes, others, scenarios_of(report["rows"]))
    axes.set_xticks([x for x, _ in places])
    axes.set_xlabel(axis.label)
    axes.set_ylabel("accuracy (%)")
    axes.grid(axis="y")
    figure.legend(*axes.get_legend_handles_labels(), loc="outside lower center", ncols=2, handlelength=2.6)
    return figure


def draw_levels(axes: Axes, rows: dict[str, Any], scenarios: list[str]) -> None:
    """Rows off the axis: one thin line per scenario, the row's key at its right end."""
    levels = sorted((cells[scenario]["mean"], index, row) for row, cells in rows.items()
                    for index, scenario in enumerate(scenarios) if scenario in cells)
    for level, index, _ in levels:
        axes.axhline(level, **{**line_style(index), "marker": None}, linewidth=0.6, alpha=0.7)
    low, high = axes.get_ylim()
    apart, place = 0.045 * (high - low), low - (high - low)
    for level, index, row in levels:
        place = max(level, place + apart)                     # names do not cover each other
        axes.annotate(row, (1, place), xycoords=("axes fraction", "data"), xytext=(2, 0), fontsize=6, va="center",
                      textcoords="offset points", color=COLOURS[index % len(COLOURS)])


def mixed(cells: dict[str, Any], mix: Mix, share: float) -> list[float]:
    """Expected accuracy of a row by seed, with `share` of the questions in scenario `mix.end`."""
    start, end = (cells[name]["by_seed"] if name in cells else {} for name in (mix.start, mix.end))
    return [(1 - share) * start[seed] + share * end[seed] for seed in start if seed in end]


Panels = list[tuple[str, str, dict[str, list[tuple[float, dict]]]]]      # x label, y label, curve -> (x, cell)


def over_mixes(report: Report, mixes: list[Mix]) -> Panels:
    """A panel per mix, a curve per row."""
    shares = [i / 5 for i in range(6)]
    return [(mix.label, "accuracy (%)", {
        row["label"]: [(100 * s, moments(mixed(row["scenarios"], mix, s))) for s in shares]
        for row in report["rows"].values() if mixed(row["scenarios"], mix, 0)}) for mix in mixes]


def over_rows(report: Report, given: RowCurves) -> Panels:
    """A panel per scenario, a curve per name, as far as its rows are done."""
    rows = {key: row["scenarios"] for key, row in report["rows"].items()}
    return [(given.label, f"{pretty(scenario)} (%)", {
        name: [(x, rows[row][scenario]) for row, x in places.items() if scenario in rows.get(row, {})]
        for name, places in given.curves.items()}) for scenario in scenarios_of(report["rows"])]


def over_scenarios(report: Report, given: list[ScenarioCurves]) -> Panels:
    """A panel for each of `given`, a curve per row."""
    return [(panel.label, "accuracy (%)", {
        row["label"]: [(x, row["scenarios"][name]) for name, x in panel.values.items() if name in row["scenarios"]]
        for row in report["rows"].values()}) for panel in given]


def draw_panels(content: Panels) -> Figure:
    """The panels one below the other, with one legend."""
    figure = Figure(figsize=(WIDTH, 0.5 + 2.0 * len(content)), layout="constrained")
    panels = figure.subplots(len(content), squeeze=False)[:, 0]
    for axes, (below, beside, curves) in zip(panels, content, strict=True):
        for index, (name, points) in enumerate(curves.items()):
            points = sorted(points, key=lambda point: point[0])
            draw_band(axes, [x for x, _ in points], [cell for _, cell in points], label=wrapped(name),
                      **line_style(index))
        axes.set_xlabel(textwrap.fill(below, 2 * LABEL))
        axes.set_ylabel(beside)
        axes.grid(axis="y")
    figure.legend(*panels[0].get_legend_handles_labels(), loc="outside lower center", ncols=2, handlelength=2.6)
    return figure


def bar_quantity(report: Report) -> tuple[str, str]:
    """What the bars show, and its key: share of the gap, or accuracy where no oracle is known."""
    if any(cell["gap_share"] is not None for row in report["rows"].values() for cell in row["scenarios"].values()):
        return "Share of the recoverable gap (%)", "gap_share"
    return "Accuracy (%)", "mean"


def draw_bars(report: Report, title: str, key: str) -> Figure:
    """Rows from top to bottom, one bar per scenario in each; a single seed has no whisker."""
    spread = "std" if key == "mean" else f"{key}_std"
    rows, scenarios = list(report["rows"].values()), scenarios_of(report["rows"])
    figure = Figure(figsize=(WIDTH, 0.75 + max(0.42, 0.09 * len(scenarios)) * len(rows)), layout="constrained")
    axes = figure.add_subplot()
    height = 0.8 / len(scenarios)
    for index, scenario in enumerate(scenarios):
        cells = [(i, row["scenarios"][scenario]) for i, row in enumerate(rows) if scenario in row["scenarios"]]
        cells = [(i + (index + 0.5) * height - 0.4, cell) for i, cell in cells if cell[key] is not None]
        whiskers = [math.nan if cell[spread] is None else cell[spread] for _, cell in cells]         # NaN is not drawn
        axes.barh([y for y, _ in cells], [cell[key] for _, cell in cells], height, label=pretty(scenario),
                  color=COLOURS[index % len(COLOURS)], hatch=HATCHES[index % len(HATCHES)], edgecolor="white",
                  linewidth=0.3, xerr=whiskers, error_kw={"elinewidth": 0.7, "capsize": 1.5, "capthick": 0.7})
    axes.axvline(0, color="black", linewidth=0.6)
    axes.set_yticks(range(len(rows)), [wrapped(row["label"]) for row in rows])
    axes.set_ylim(len(rows) - 0.5, -0.5)
    axes.spines["left"].set_visible(False)             # the line at zero stands for it
    axes.set_xlabel(title.lower())
    axes.tick_params(axis="y", length=0)
    axes.grid(axis="x")
    axes.set_axisbelow(True)
    figure.legend(loc="outside lower center", ncols=min(len(scenarios), 3), handlelength=1.4, columnspacing=1.0)
    return figure
