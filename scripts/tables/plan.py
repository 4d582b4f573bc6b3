"""From grids to runs: one run per resolved configuration, whichever tables and rows ask for it."""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

from engine.config import beyond_defaults, compose, is_for, load_yaml
from engine.errors import UsageError
from scripts.tables.grid import DEFAULT, Change, Grid, Recipes, Row, as_list

# A start takes over what a row says about these: it must be of the row's own data and backbone.
INHERITED = ("dataset", "backbone")
DIGITS = 10                      # of a digest in the name of a run folder
VERSION = 2                      # raised when a default or the meaning of an option changes: earlier runs differ then
# Options that change no answer, save for rounding: how fast, where, and notes on the way.
NO_ANSWER = {"runtime": ("device", "compile", "workers"), "evaluate": ("batch_size",), "train": ("log_every",)}


@dataclass
class PlannedRun:
    """One training, known by its configuration's digest; `users` names tables, rows and seeds."""

    name: str
    digest: str
    folder: Path
    arguments: list[str]         # of main_train.py
    depends_on: PlannedRun | None
    scenarios: list[str]         # that it is evaluated in
    users: list[str] = field(default_factory=list)
    config: dict[str, Any] = field(default_factory=dict, repr=False)      # resolved

    @property
    def done(self) -> bool:
        return (self.folder / "results.json").is_file()

    def starts(self) -> list[PlannedRun]:
        """What must be trained before, in this order."""
        return [*self.depends_on.starts(), self.depends_on] if self.depends_on else []


@dataclass
class Plan:
    """All runs by name, starts before what needs them, and per table the run of every row and seed.

    `asked`: the run of every list of arguments so far, since many rows have the same start.
    """

    runs: dict[str, PlannedRun] = field(default_factory=dict)
    tables: dict[str, dict[str, dict[int, PlannedRun]]] = field(default_factory=dict)
    asked: dict[tuple[str, ...], PlannedRun] = field(default_factory=dict, repr=False)

    def add_table(self, name: str, grid: Grid, seeds: int | None, overrides: list[str]) -> None:
        """Add the runs that `grid` needs; a row's own overrides win over `overrides`."""
        self.tables[name] = {row: {} for row in grid.rows}
        for seed in range(1, (seeds or grid.seeds) + 1):
            for key in grid.rows:
                try:
                    self.tables[name][key][seed] = self.add_row(name, key, grid, seed, overrides)
                except UsageError as error:
                    raise UsageError(f"table {name}, row {key}: {error}") from error

    def add_row(self, table: str, key: str, grid: Grid, seed: int, overrides: list[str]) -> PlannedRun:
        row, start = grid.rows[key], None
        if row.model_of:
            return self.add_row_from(self.tables[table][row.model_of][seed], row, f"{table}/{key} s{seed}")
        stages, rows_from = grid.schedule([*overrides, *row.overrides])
        rows_from = as_list(row.rows_from) or rows_from
        asked = [*rows_from, *row.files, *overrides, *row.overrides]
        own = row.on_data(resolved(asked)["dataset"]["name"]) if row.data else row
        for stage in stages:
            from_files, from_overrides = inherited(own)
            common = [*stage, f"train.seed={seed}", *from_files, *overrides, *from_overrides, *row.start]
            common[len(stage):len(stage)] = recipes_of(grid, row, "start", common)
            common += [f"train.init={start.folder / 'best.pt'}"] if start else []
            start = self.add_run(common, start, f"{table}/start s{seed}")
        arguments = [*rows_from, *own.files, f"train.seed={seed}", *overrides, *own.overrides]
        arguments[len(rows_from):len(rows_from)] = recipes_of(grid, row, "rows", arguments)
        if start is not None:
            arguments.append(f"train.init={start.folder / grid.start_checkpoint}.pt")
        user = f"{table}/{key} s{seed}"
        run = self.add_run(arguments, start, user)
        if set(grid.scenarios or ()) <= set(run.scenarios):
            return run
        scenarios = dict.fromkeys([*run.scenarios, *grid.scenarios])
        return self.add_row_from(run, Change(overrides=[f"evaluate.scenarios=[{','.join(scenarios)}]"]), user)

    def add_row_from(self, trained: PlannedRun, row: Change, user: str) -> PlannedRun:
        """The tested model of `trained` with the options of `row`, as it is unless these train it
        further.
        """
        arguments = [a for a in trained.arguments if not a.startswith(("train.init=", "run.name="))]
        arguments += [*row.files, "train.epochs=0", "train.init_method=true", *row.overrides]
        tested = trained.folder / f"{trained.config['evaluate']['checkpoint']}.pt"
        return self.add_run([*arguments, f"train.init={tested}"], trained, user)

    def add_run(self, arguments: list[str], start: PlannedRun | None, user: str) -> PlannedRun:
        """The run of these arguments: a new one, or the planned one of the same configuration."""
        run = self.asked.get(tuple(arguments)) or self.named_run(arguments, start)
        self.asked[tuple(arguments)] = run
        if user not in run.users:
            run.users.append(user)
        return run

    def named_run(self, arguments: list[str], start: PlannedRun | None) -> PlannedRun:
        config = resolved(arguments)
        digest = digest_of(config, start)
        parts = (config["dataset"]["name"], config["backbone"]["name"], config["method"]["name"],
                 f"s{config['train']['seed']}", digest[:DIGITS])
        name = "-".join(parts)
        if name not in self.runs:
            folder, arguments = Path(config["run"]["root"]) / name, [*arguments, f"run.name={name}"]
            self.runs[name] = PlannedRun(name, digest, folder, arguments, start, config["evaluate"]["scenarios"],
                                         config=config)
        return self.runs[name]

    def shard(self, index: int, count: int) -> list[PlannedRun]:
        """Part `index` of 1..`count` of the runs, with the starts they need.

        The parts share starts and nothing else; together they hold every run.
        """
        starts = {run.depends_on.name for run in self.runs.values() if run.depends_on}
        chosen = [run for name, run in self.runs.items() if name not in starts][index - 1::count]
        needed = {run.name: run for one in chosen for run in one.starts()}
        return [*needed.values(), *chosen]


def recipes_of(grid: Grid, row: Row, stage: str, arguments: list[str]) -> list[str]:
    """The table's recipes of that stage that are for the components the arguments choose."""
    if not row.recipe or not grid.recipes:
        return []
    config = resolved(arguments)
    chosen = grid.recipes.get(config["dataset"]["name"]) or grid.recipes.get(DEFAULT) or Recipes()
    return [file for file in getattr(chosen, stage) if is_for(Path(file), config)]


def resolved(arguments: list[str]) -> dict[str, Any]:
    """The configuration of a command line of main_train.py."""
    return compose([a for a in arguments if "=" not in a], [a for a in arguments if "=" in a])


def inherited(change: Change) -> tuple[list[str], list[str]]:
    """What a start takes over from a row: some of its files, as overrides, and of its overrides."""
    of_files = [item for file in change.files for item in as_overrides(load_yaml(Path(file)))]
    return of_files, [item for item in change.overrides if item.partition("=")[0].partition(".")[0] in INHERITED]


def as_overrides(layer: dict[str, Any]) -> list[str]:
    """The inherited sections of a YAML file as `key=value`, what names the component first."""
    overrides = []
    for section in INHERITED:
        options = dict(layer.get(section) or {})
        overrides += [f"{section}={options.pop('name')}"] if "name" in options else []
        overrides += [f"{section}.{key}={spelled(value)}" for key, value in options.items()]
    return overrides


def spelled(value: Any) -> str:
    """A value as a command line spells it: text stays as it is where YAML takes it for text."""
    return value if isinstance(value, str) and yaml.safe_load(value) == value else json.dumps(value)


def digest_of(config: dict[str, Any], start: PlannedRun | None) -> str:
    """SHA-256 of what a configuration says about the answers; the start counts by its own digest.

    Options at the default of their constructor do not count, so one that is added later, off by
    default, leaves the runs trained before what they are. `tests/golden/defaults.json` keeps the
    defaults from changing unnoticed.
    """
    content = beyond_defaults(config)
    for section, keys in NO_ANSWER.items():
        content[section] = {key: value for key, value in content[section].items() if key not in keys}
    content["run"] = {}
    if start is not None:
        stem = Path(config["train"]["init"]).stem
        content["train"]["init"] = start.digest if stem == "best" else f"{start.digest} {stem}"
    return hashlib.sha256(json.dumps({"version": VERSION, **content}, sort_keys=True).encode()).hexdigest()
