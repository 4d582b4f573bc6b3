"""A table or figure as data: a file below configs/tables, read strictly."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from dataset import DATASETS
from dataset.files import refuse_special
from engine.config import CONFIGS, ScenarioName, describe, nearest
from engine.errors import UsageError
from engine.yaml_layers import parse_yaml

STRICT = ConfigDict(extra="forbid", frozen=True)
TABLES = CONFIGS / "tables"
SETS = {"all": TABLES, "recall": TABLES / "recall"}              # what one command runs -> folder of its tables
DEFAULT = "default"              # in place of a data set: any that is not named
Percent = Annotated[float, Field(ge=0, le=100)]
Files = str | Annotated[list[str], Field(min_length=1)]          # one, or several of which later ones win
Stages = str | Annotated[list[Files], Field(min_length=1)]


class Change(BaseModel):
    """What is laid over a configuration: files in their order, then `key=value`; later ones win."""

    model_config = STRICT
    files: list[str] = []
    overrides: list[str] = []


class Row(Change):
    """One line of the table: its name and what makes it differ from the shared configuration.

    `data`: data set -> what is added there, such as features of its own for one backbone.
    `rows_from`: files in place of the table's. `start`: what is laid over its start.
    `model_of`: an earlier row whose best model and options this row takes over; it tests that model
    with what it overrides, or trains it on where it sets `train.epochs`.
    `figures_of`: the row of `published` whose figures stand beside this one, where it is another;
    print may leave open which of two it is.
    """

    label: str
    recipe: bool = True           # false: without the table's recipes
    rows_from: Files | None = None
    start: list[str] = []
    model_of: str | None = None
    figures_of: str | None = None
    data: dict[str, Change] = {}

    def on_data(self, dataset: str) -> Change:
        """The whole change where the row is on `dataset`."""
        more = self.data.get(dataset, Change())
        return Change(files=[*self.files, *more.files], overrides=[*self.overrides, *more.overrides])


class Recipes(BaseModel):
    """Further configuration files; a run takes those that are `for` its components."""

    model_config = STRICT
    start: list[str] = []
    rows: list[str] = []


class Axis(BaseModel):
    """A curve over rows: `values` gives each its place on the x axis; other rows are levels."""

    model_config = STRICT
    name: str                     # the configuration key, such as rmm.slots
    label: str
    values: Annotated[dict[str, float], Field(min_length=2)]


class Panel(BaseModel):
    """Curves that share an x axis."""

    model_config = STRICT
    label: str


class RowCurves(Panel):
    """A figure with a panel per scenario; `curves`: name -> row -> its place on the x axis."""

    curves: Annotated[dict[str, dict[str, float]], Field(min_length=1)]


class ScenarioCurves(Panel):
    """A panel with a curve per row; `values` gives each scenario its place on the x axis."""

    values: Annotated[dict[ScenarioName, float], Field(min_length=2)]


class Mix(Panel):
    """A curve over a share r of questions in scenario `end`; the others are in `start`.

    Questions are answered one by one: the expected accuracy is (1 - r) * start + r * end.
    """

    start: ScenarioName
    end: ScenarioName


class Published(BaseModel):
    """The figures of one printed row in one scenario, in percent."""

    model_config = STRICT
    overall: Percent | None = None
    by_type: dict[str, Percent] = {}
    by_modality: dict[str, Percent] = {}


class Grid(BaseModel):
    """A whole table.

    `rows_from`: the configuration that the rows share, a file or several laid over each other, or a
    mapping data set: files, where each has a schedule of its own; the table is for these data sets
    then, and for all where one is called `default`. `start`: likewise the configuration that all
    rows are initialised from, or a list of stages (each a file or a list of files), each from the
    one before; null trains every row from scratch. `start_checkpoint`: which one the rows take of
    it; a stage gives the next its best. `recipes`: data set -> the files laid over both.
    `scenarios`: the columns; null: those that the configuration evaluates; what it does not is
    tested with the trained model. `calibration`: its error stands in the report. `costs`: so do
    R2 of the stand-ins, time and parameters (`cost.py`). `compare_to`: the reference row of the
    tests, for all rows or row by row, then one or a list. `published`: row -> scenario -> figures;
    `printed`: row or "*" -> heading in print -> the type its figures belong to (already applied in
    `published`).
    """

    model_config = STRICT
    title: str
    start: Stages | None | dict[str, Stages | None]
    rows_from: Files | Annotated[dict[str, Files], Field(min_length=1)]
    rows: Annotated[dict[str, Row], Field(min_length=1)]
    seeds: Annotated[int, Field(ge=1)] = 3
    scenarios: Annotated[list[ScenarioName], Field(min_length=1)] | None = None
    start_checkpoint: Literal["best", "last"] = "best"
    recipes: dict[str, Recipes] = {}
    axis: Axis | None = None
    row_curves: RowCurves | None = None
    scenario_curves: list[ScenarioCurves] = []
    mixes: list[Mix] = []
    calibration: bool = False
    costs: bool = False
    compare_to: str | dict[str, str | list[str]] | None = None
    published: dict[str, dict[ScenarioName, Published]] = {}
    printed: dict[str, dict[str, str]] = {}

    def is_for(self, dataset: str) -> bool:
        return not isinstance(self.rows_from, dict) or dataset in self.rows_from or DEFAULT in self.rows_from

    def schedule(self, overrides: list[str]) -> tuple[list[list[str]], list[str]]:
        """(files of every stage of the start, files of the rows) for the data set of `overrides`.

        Without a choice, for the table's usual data set.

        Raises:
            UsageError: the table is not for that data set.
        """
        start, files = self.start, self.rows_from
        if isinstance(files, dict):
            chosen = chosen_dataset(overrides) or next(iter(files))
            if not self.is_for(chosen):
                raise UsageError(f"the table is for dataset={' or '.join(files)}, not for dataset={chosen}")
            key = chosen if chosen in files else DEFAULT
            start, files = start[key] if isinstance(start, dict) else start, files[key]
        return [as_list(stage) for stage in as_list(start)], as_list(files)

    @model_validator(mode="after")
    def starts_belong_to_schedules(self) -> Grid:
        names = set(self.rows_from) if isinstance(self.rows_from, dict) else None
        if isinstance(self.start, dict) and set(self.start) != names:
            raise ValueError("start and rows_from must name the same data sets")
        return self

    @model_validator(mode="after")
    def names_only_what_it_has(self) -> Grid:
        compared = set(self.compare_to) if isinstance(self.compare_to, dict) else set()
        curves = self.row_curves.curves.values() if self.row_curves else ()
        named = {"axis.values": self.axis.values if self.axis else (), "published": self.published,
                 "row_curves": [row for rows in curves for row in rows],
                 "figures_of": {row.figures_of for row in self.rows.values()} - {None},
                 "printed": set(self.printed) - {"*"},
                 "compare_to": compared.union(*(self.references(row) for row in [*compared, *self.rows]))}
        for key, rows in named.items():
            for row in rows:
                if row not in self.rows:
                    raise ValueError(f"{key} names the row '{row}'; {nearest(row, self.rows)}")
        for key, row in self.rows.items():
            for name in row.data:
                if name not in DATASETS:
                    raise ValueError(f"rows.{key}: data names the data set '{name}'; {nearest(name, DATASETS)}")
        for place, (name, row) in enumerate(self.rows.items()):
            ignored = {"rows_from", "start", "data"} & row.model_fields_set if row.model_of else ()
            if ignored:
                raise ValueError(f"rows.{name} takes over another row's model and options; "
                                 f"{', '.join(sorted(ignored))} would be ignored")
            if row.model_of and row.model_of not in list(self.rows)[:place]:
                raise ValueError(f"rows.{name}.model_of names '{row.model_of}', which is no row above it")
        panels = [(mix.label, [mix.start, mix.end]) for mix in self.mixes]
        for panel, needed in [*panels, *((curves.label, list(curves.values)) for curves in self.scenario_curves)]:
            if self.scenarios and not set(needed) <= set(self.scenarios):
                raise ValueError(f"the curves over '{panel}' need {' and '.join(needed)} among the scenarios")
        return self

    def figures(self, row: str) -> dict[str, Published]:
        """The published figures beside `row`, by scenario."""
        return self.published.get(self.rows[row].figures_of or row, {})

    def references(self, row: str) -> list[str]:
        """The rows that `row` is tested against."""
        named = self.compare_to.get(row) if isinstance(self.compare_to, dict) else self.compare_to
        return [name for name in as_list(named) if name != row]


def as_list(one_or_several: str | list | None) -> list:
    return [one_or_several] if isinstance(one_or_several, str) else one_or_several or []


def chosen_dataset(overrides: list[str]) -> str | None:
    """The data set that `key=value` overrides choose last, None where they choose none."""
    chosen = [item.partition("=")[2] for item in overrides if item.partition("=")[0] in ("dataset", "dataset.name")]
    return chosen[-1] if chosen else None


def table_names(of: str | None = None) -> list[str]:
    """The names of the tables of one set, or of all sets."""
    folders = SETS.values() if of is None else [SETS[of]]
    return [path.stem for folder in folders for path in sorted(folder.glob("*.yaml"))]


def find_grid(name: str) -> tuple[str, Grid]:
    """The table called `name` below configs/tables, or the one in the file `name`."""
    is_file = name.endswith((".yaml", ".yml"))
    candidates = [Path(name)] if is_file else [folder / f"{name}.yaml" for folder in SETS.values()]
    for path in candidates:
        if path.is_file():
            return path.stem, read_grid(path)
    raise UsageError(f"there is no table '{name}'; {nearest(name, [*table_names(), *SETS])}, or a file TABLE.yaml")


def read_grid(path: Path) -> Grid:
    """The grid in a file; UsageError naming file and key when it is not one."""
    if not re.fullmatch(r"[\w.-]+", path.stem):
        raise UsageError(f"{path}: the name of a table may hold letters, digits, '_', '-' and '.' only")
    refuse_special(path)
    content = parse_yaml(path.read_bytes(), str(path), aliases=True)
    try:
        return Grid.model_validate(content)
    except ValidationError as error:
        raise UsageError(f"{path}: {'; '.join(describe(item, Grid, 'key') for item in error.errors())}") from error
