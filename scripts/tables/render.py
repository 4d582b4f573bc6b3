"""A collected table as a report: report.md for people, report.json for programs, the plots beside them."""

from __future__ import annotations

import math
from dataclasses import asdict
from pathlib import Path
from typing import Any

from dataset.files import write_json, write_text
from engine.logger import code_version
from engine.metrics import columns_of
from scripts.tables.collect import Ave, Cell, Table, mean, spread
from scripts.tables.plots import draw_all
from scripts.tables.results import results_table
from scripts.tables.statistics import RESAMPLES, RULE
from scripts.tables.text import escaped, grid_text, number, pretty, with_spread

AVE_NOTE = """L_ave: the loss of the diffusion (Eq. 7), mean over the last epoch; predicting no noise at all gives 1.0. Its
bound: the least that noise prediction can reach with a last layer of fewer channels than the pair has (- where the input is
added to the output, which lifts the bound, where something else than the noise is predicted, or where best.pt is gone)."""
NOTES = f"""Differences in points, row minus reference, paired by question and by seed. Over questions: percentile bootstrap
({RESAMPLES} draws of whole videos) of the difference averaged over seeds, and exact McNemar tests per seed, joined over K
seeds as K/k times the k-th smallest p-value, k = ceil(K/2). Over seeds: paired t, from three seeds on. Holm: corrected for
all comparisons of this table. The intervals over seeds are not corrected; where many rows are compared, believe those most
whose last column of p-values is small, too. With few seeds the t-test has little power: "no difference shown" does not mean
that there is none."""


def write_report(table: Table, folder: Path, command: str) -> Path:
    """Write the report of a table with at least one finished run; returns the Markdown file."""
    captions = draw_all(table, folder)
    write_json(folder / "report.json", finite(as_json(table, command)))
    write_text(folder / "report.md", as_markdown(table, command, captions))
    return folder / "report.md"


def p_value(p: float | None) -> str:
    if p is None:
        return "-"
    return "< 0.0001" if p < 1e-4 else f"{p:.4f}" if p < 0.1 else f"{p:.2f}"


def interval(bounds: tuple[float, float] | None) -> str:
    return "-" if bounds is None else f"[{number(bounds[0], sign=True)}, {number(bounds[1], sign=True)}]"


def label(table: Table, row: str) -> str:
    return escaped(table.grid.rows[row].label)


def as_markdown(table: Table, command: str, captions: dict[str, str]) -> str:
    parts = [f"# {table.grid.title}", heading(table, command), "## Results", accuracy_section(table)]
    if table.grid.published:
        parts += ["## Beside the paper", paper_section(table)]
    parts += ["## Share of the recoverable gap", gap_section(table), "## Differences", difference_section(table)]
    parts += ["## Figures", *(f"![{text}]({name}.png)\n\n{text} ({name}.svg)" for name, text in captions.items())]
    parts += ["## Appendix A: by question type", *type_sections(table)]
    parts += ["## Appendix B: runs", run_section(table)]
    return "\n\n".join(parts) + "\n"


def heading(table: Table, command: str) -> str:
    """The command, how much of the table is done, and with which code and environment."""
    waiting = table.planned - len(table.runs)
    lines = [f"`{command}`", f"Runs: {len(table.runs)} of {table.planned} done"
             + (f"; the figures below are of an unfinished table ({waiting} runs lacking)." if waiting else "."),
             f"Data: {', '.join(sorted({run.dataset for run in table.runs}))}.",
             f"Code: {', '.join(sorted({run.code for run in table.runs}))} (of this report: {code_version() or 'unknown'})."]
    return "\n\n".join([lines[0], "\n".join(f"- {line}" for line in [*lines[1:], *environments(table)])])


def environments(table: Table) -> list[str]:
    """Each distinct environment among the runs, in a line."""
    found = []
    for run in table.runs:
        e = run.environment
        libraries = ", ".join(f"{k} {v}" for k, v in e.get("libraries", {}).items())
        found.append(f"Environment: Python {e.get('python', 'unknown')}, {libraries or 'libraries unknown'}; "
                     f"{e.get('device', 'device unknown')}; threads {e.get('threads', '?')}, "
                     f"processes {e.get('processes', '?')}.")
    return list(dict.fromkeys(found))


def accuracy_section(table: Table) -> str:
    note = ("Accuracy in percent over all test questions: mean ± standard deviation over seeds. Oracle: the best possible "
            "answer from what is left of the input (- where the data do not tell it). Floor: the majority answer for the "
            "text of the question.")
    return f"{results_table(tables_json(table))}\n\n{note}{f' {AVE_NOTE}' if table.ave else ''}"


def paper_section(table: Table) -> str:
    scenarios = [s for s in table.scenarios if any(s in of_row for of_row in table.grid.published.values())]
    lines = []
    for row, cells in table.cells.items():
        if not table.grid.figures(row):
            continue
        line = [label(table, row)]
        for s in scenarios:
            cell = cells.get(s, Cell())
            printed = cell.published.overall if cell.published else None
            line += [with_spread(cell.values.values()), number(printed, 2), number(cell.beside_paper, sign=True)]
        lines.append(line)
    head = ["", *(text for s in scenarios for text in (pretty(s), "paper", "difference"))]
    note = "Difference: our mean minus the printed figure, in points."
    if any(run.dataset == "synthetic" for run in table.runs):
        note += (" These runs are on the embedded benchmark, the paper's are on other data: the order of the rows can be "
                 "compared, the differences cannot.")
    return f"{grid_text(lines, head)}\n\n{note}"


def gap_section(table: Table) -> str:
    if not any(cell.shares for cells in table.cells.values() for cell in cells.values()):
        return "Not known: these data have no oracle."
    lines = [[label(table, row), *(with_spread(cells[s].shares) if s in cells else "-" for s in table.scenarios)]
             for row, cells in table.cells.items()]
    return (f"{grid_text(lines, ['', *map(pretty, table.scenarios)])}\n\n"
            "(accuracy - floor) / (oracle - floor) in percent, mean ± standard deviation over seeds.")


def difference_section(table: Table) -> str:
    left_out = ", ".join(label(table, row) for row in table.untested)
    left_out = f"\n\nTrained with one seed alone, so not tested: {left_out}." if left_out else ""
    if not table.comparisons:
        return "Nothing was tested: the table names no reference row (`compare_to`), or its runs are not done." + left_out
    lines = [[label(table, c.row), label(table, c.reference), pretty(c.scenario), str(c.seeds),
              number(c.difference, sign=True), interval(c.bootstrap), p_value(c.p_questions), p_value(c.p_questions_holm),
              interval(c.seed_interval), p_value(c.p_seeds), p_value(c.p_seeds_holm), c.verdict] for c in table.comparisons]
    head = ["", "against", "scenario", "seeds", "difference", "95 % over questions", "McNemar p", "Holm", "95 % over seeds",
            "t-test p", "Holm", "verdict"]
    return f"{grid_text(lines, head)}{left_out}\n\n{RULE}\n\n{NOTES}"


def type_sections(table: Table) -> list[str]:
    """One table per scenario; the paper's line under ours where it is printed."""
    parts = []
    for scenario in table.scenarios:
        cells = {row: cells[scenario] for row, cells in table.cells.items() if scenario in cells}
        columns, total = columns_of({name for cell in cells.values() for name in cell.groups})
        lines = []
        for row, cell in cells.items():
            lines.append([label(table, row), *(with_spread(cell.groups.get(name, {}).values()) for name in columns.values()),
                          with_spread(cell.values.values())])
            if cell.published:
                printed = {**cell.published.by_type, **cell.published.by_modality}
                lines.append(["*paper*", *(number(printed.get(name), 2) for name in columns.values()),
                              number(cell.published.overall, 2)])
        questions = ", ".join(sorted({str(cell.questions) for cell in cells.values()}))
        parts.append(f"### {pretty(scenario)} ({questions} questions)\n\n{grid_text(lines, ['', *columns, total])}")
    return parts


def run_section(table: Table) -> str:
    lines = [[label(table, run.row), str(run.seed), f"`{run.name}`", f"`{run.digest[:16]}`", run.code, str(run.epoch)]
             for run in table.runs]
    commands = list(dict.fromkeys(c for run in table.runs for c in (run.start, run.command) if c))
    return (f"{grid_text(lines, ['row', 'seed', 'folder', 'configuration', 'code', 'epoch'])}\n\n"
            "Configuration: the first digits of the SHA-256 of the resolved configuration; rows with the same one share a "
            "run. Epoch: chosen on validation.\n\nCommands, starts before what is initialised from them:\n\n```bash\n"
            + "\n".join(commands) + "\n```")


def as_json(table: Table, command: str) -> dict[str, Any]:
    comparisons = [{**asdict(c), "verdict": c.verdict} for c in table.comparisons]
    return {"title": table.grid.title, "command": command, "code": code_version() or "unknown",
            "runs_planned": table.planned, "runs_done": len(table.runs), **tables_json(table), "comparisons": comparisons,
            "rule": RULE}


def tables_json(table: Table) -> dict[str, Any]:
    """What the tables of accuracies are made from."""
    rows = {row: {"label": table.grid.rows[row].label, "scenarios": {s: cell_json(cell) for s, cell in cells.items()},
                  "ave": ave_json(table.ave[row]) if row in table.ave else None} for row, cells in table.cells.items()}
    return {"table": table.name, "rows": rows, "runs": [{**asdict(run), "code": run.code} for run in table.runs]}


def ave_json(ave: Ave) -> dict[str, Any]:
    values = ave.values.values()
    return {"mean": mean(values), "std": spread(values), "by_seed": ave.values, "bound": ave.bound}


def cell_json(cell: Cell) -> dict[str, Any]:
    values = list(cell.values.values())
    groups = {name: {"mean": mean(found.values()), "std": spread(found.values())} for name, found in cell.groups.items()}
    return {"mean": mean(values), "std": spread(values), "seeds": len(values), "by_seed": cell.values,
            "questions": cell.questions, "floor": cell.floor, "oracle": cell.oracle,
            "gap_share": mean(cell.shares) if cell.shares else None, "gap_share_std": spread(cell.shares), "groups": groups,
            "published": cell.published.model_dump() if cell.published else None, "beside_paper": cell.beside_paper}


def finite(value: Any) -> Any:
    """JSON has no NaN: None in its place."""
    if isinstance(value, dict):
        return {key: finite(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [finite(item) for item in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value
