"""The content of a report as files: report.md for people, report.json for programs, plots."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from dataset.files import write_json, write_text
from engine.logger import code_version
from engine.metrics import BINS, columns_of
from scripts.tables.cost import cost_section
from scripts.tables.grid import Grid
from scripts.tables.plots import draw_all
from scripts.tables.statistics import RESAMPLES, RULE
from scripts.tables.text import (
    escaped,
    finite,
    grid_text,
    number,
    plus_minus,
    pretty,
    results_table,
    scenarios_of,
    with_spread,
)

Report = dict[str, Any]
NOTE = ("Accuracy in percent over all test questions: mean ± standard deviation over seeds. Oracle: the best possible "
        "answer from what is left of the input (- where the data do not tell it). Floor: the majority answer for the "
        "text of the question.")
AVE_NOTE = """L_ave: the loss of the diffusion (Eq. 7), mean over the last epoch; predicting no noise at all gives 1.0.
Skip alone: what the input skip reaches with its initial weights and nothing else, on features of unit variance
(mean of alpha-bar_t over the steps). Its bound: the least that noise prediction can reach without the skip, by a
last layer of fewer channels than the pair has. Each is - where it does not apply, or where best.pt is gone."""
NOTES = f"""Differences in points, row minus reference, paired by question and by seed. Over questions: percentile
bootstrap ({RESAMPLES} draws of whole videos) of the difference averaged over seeds, and exact McNemar tests per
seed, joined over K seeds as K/k times the k-th smallest p-value, k = ceil(K/2). Over seeds: paired t, from
three seeds on. Holm: corrected for all comparisons of this table. The intervals over seeds are not
corrected; where many rows are compared, believe those most whose last column of p-values is small, too.
With few seeds the t-test has little power: "no difference shown" does not mean that there is none."""


def write_report(report: Report, grid: Grid, folder: Path, command: str) -> Path:
    """Write the report of a table with at least one finished run; returns the Markdown file."""
    captions = draw_all(report, grid, folder)
    code = code_version() or "unknown"
    content = {"title": report["title"], "command": command, "code": code, **report, "rule": RULE}
    write_json(folder / "report.json", finite(content))
    write_text(folder / "report.md", as_markdown(content, captions))
    return folder / "report.md"


def as_markdown(report: Report, captions: dict[str, str]) -> str:
    sections = {"": heading(report), "## Results": f"{results_table(report)}\n\n{NOTE}" + (
        f" {AVE_NOTE}" if any(row["ave"] for row in report["rows"].values()) else "")}
    if any(cell["published"] for row in report["rows"].values() for cell in row["scenarios"].values()):
        sections["## Beside the paper"] = paper_section(report)
    if any("ece" in cell for row in report["rows"].values() for cell in row["scenarios"].values()):
        sections["## Calibration"] = calibration_section(report)
    if any("costs" in row for row in report["rows"].values()):
        sections["## Cost and recall"] = cost_section(report)
    sections |= {
        "## Share of the recoverable gap": gap_section(report), "## Differences": difference_section(report),
        "## Figures": "\n\n".join(f"![{text}]({name}.png)\n\n{text} ({name}.svg)" for name, text in captions.items()),
        "## Appendix A: by question type": type_section(report), "## Appendix B: runs": run_section(report)}
    parts = [part for title, text in sections.items() for part in (title or f"# {report['title']}", text)]
    return "\n\n".join(parts) + "\n"


def p_value(p: float | None) -> str:
    if p is None:
        return "-"
    return "< 0.0001" if p < 1e-4 else f"{p:.4f}" if p < 0.1 else f"{p:.2f}"


def interval(bounds: tuple[float, float] | None) -> str:
    return "-" if bounds is None else f"[{number(bounds[0], sign=True)}, {number(bounds[1], sign=True)}]"


def label(report: Report, row: str) -> str:
    return escaped(report["rows"][row]["label"])


def heading(report: Report) -> str:
    """The command, how much of the table is done, and with which code and environments."""
    runs, planned = report["runs"], report["runs_planned"]
    waiting = planned - len(runs)
    unfinished = f"; the figures below are of an unfinished table ({waiting} runs lacking)" if waiting else ""
    lines = [f"Runs: {len(runs)} of {planned} done{unfinished}.",
             f"Data: {', '.join(sorted({run['dataset'] for run in runs}))}.",
             f"Code: {', '.join(sorted({run['code'] for run in runs}))} (of this report: {report['code']}).",
             *dict.fromkeys(environment_line(run["environment"]) for run in runs)]
    return f"`{report['command']}`\n\n" + "\n".join(f"- {line}" for line in lines)


def environment_line(environment: dict[str, Any]) -> str:
    libraries = ", ".join(f"{k} {v}" for k, v in environment.get("libraries", {}).items())
    return (f"Environment: Python {environment.get('python', 'unknown')}, {libraries or 'libraries unknown'}; "
            f"{environment.get('device', 'device unknown')}; threads {environment.get('threads', '?')}, "
            f"processes {environment.get('processes', '?')}.")


def paper_section(report: Report) -> str:
    rows = {key: row["scenarios"] for key, row in report["rows"].items()}
    scenarios = [s for s in scenarios_of(report["rows"])
                 if any(cells[s]["published"] for cells in rows.values() if s in cells)]
    lines = []
    for key, cells in rows.items():
        if any(cell["published"] for cell in cells.values()):
            lines.append([label(report, key)])
            for cell in (cells.get(s) or {} for s in scenarios):
                printed = (cell.get("published") or {}).get("overall")
                lines[-1] += [with_spread(cell), number(printed, 2), number(cell.get("beside_paper"), sign=True)]
    head = ["", *(text for s in scenarios for text in (pretty(s), "paper", "difference"))]
    note = "Difference: our mean minus the printed figure, in points."
    if any(run["dataset"] == "synthetic" for run in report["runs"]):
        note += (" These runs are on the embedded benchmark, the paper's are on other data: the order of the rows can "
                 "be compared, the differences cannot.")
    return f"{grid_text(lines, head)}\n\n{note}"


def gap_section(report: Report) -> str:
    if all(cell["gap_share"] is None for row in report["rows"].values() for cell in row["scenarios"].values()):
        return "Not known: these data have no oracle."
    return (f"{spreads(report, 'gap_share')}\n\n"
            "(accuracy - floor) / (oracle - floor) in percent, mean ± standard deviation over seeds.")


def calibration_section(report: Report) -> str:
    return (f"{spreads(report, 'ece')}\n\nExpected calibration error in percent, mean ± standard deviation over seeds: "
            f"|confidence - accuracy|, averaged over answers in {BINS} bins of confidence. 0: as often right as sure.")


def spreads(report: Report, key: str) -> str:
    """A table of `key` and its deviation `key`_std in every cell."""
    scenarios = scenarios_of(report["rows"])
    lines = [[label(report, name), *(plus_minus(cell.get(key), cell.get(f"{key}_std")) for cell in (
        row["scenarios"].get(s, {}) for s in scenarios))] for name, row in report["rows"].items()]
    return grid_text(lines, ["", *map(pretty, scenarios)])


def difference_section(report: Report) -> str:
    left_out = ", ".join(label(report, row) for row in report["untested"])
    left_out = f"\n\nTrained with one seed alone, so not tested: {left_out}." if left_out else ""
    if not report["comparisons"]:
        return f"Nothing was tested: no reference row is named (`compare_to`), or its runs are not done.{left_out}"
    lines = [[label(report, c["row"]), label(report, c["reference"]), pretty(c["scenario"]), str(c["seeds"]),
              number(c["difference"], sign=True), interval(c["bootstrap"]), p_value(c["p_questions"]),
              p_value(c["p_questions_holm"]), interval(c["seed_interval"]), p_value(c["p_seeds"]),
              p_value(c["p_seeds_holm"]), c["verdict"]] for c in report["comparisons"]]
    head = ["", "against", "scenario", "seeds", "difference", "95 % over questions", "McNemar p", "Holm",
            "95 % over seeds", "t-test p", "Holm", "verdict"]
    return f"{grid_text(lines, head)}{left_out}\n\n{RULE}\n\n{NOTES}"


def type_section(report: Report) -> str:
    """One table per scenario; the paper's line under ours where it is printed."""
    parts = []
    for scenario in scenarios_of(report["rows"]):
        cells = {key: row["scenarios"][scenario] for key, row in report["rows"].items() if scenario in row["scenarios"]}
        columns, total = columns_of({name for cell in cells.values() for name in cell["groups"]})
        lines = []
        for key, cell in cells.items():
            lines.append([label(report, key), *(with_spread(cell["groups"].get(name)) for name in columns.values()),
                          with_spread(cell)])
            if paper := cell["published"]:
                printed = paper["by_type"] | paper["by_modality"]
                lines.append(["*paper*", *(number(printed.get(name), 2) for name in columns.values()),
                              number(paper["overall"], 2)])
        questions = ", ".join(sorted({str(cell["questions"]) for cell in cells.values()}))
        parts.append(f"### {pretty(scenario)} ({questions} questions)\n\n{grid_text(lines, ['', *columns, total])}")
    return "\n\n".join(parts)


def run_section(report: Report) -> str:
    runs = report["runs"]
    lines = [[label(report, run["row"]), str(run["seed"]), f"`{run['name']}`", f"`{run['digest'][:16]}`", run["code"],
              str(run["epoch"])] for run in runs]
    commands = list(dict.fromkeys(c for run in runs for c in (run["start"], run["command"]) if c))
    return (f"{grid_text(lines, ['row', 'seed', 'folder', 'configuration', 'code', 'epoch'])}\n\n"
            "Configuration: the first digits of the SHA-256 of the resolved configuration; rows with the same one "
            "share a run. Epoch: chosen on validation.\n\n"
            "Commands, starts before what is initialised from them:\n\n```bash\n"
            + "\n".join(commands) + "\n```")
