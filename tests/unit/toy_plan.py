"""A table of two rows as a plan."""

from scripts.tables.grid import Grid
from scripts.tables.plan import Plan

GRID = {"title": "t", "start": "configs/embedded_plain.yaml", "rows_from": "configs/embedded.yaml", "rows": {
    "dropout": {"label": "modality dropout", "overrides": ["method=modality_dropout"]},
    "few": {"label": "few slots", "overrides": ["rmm.slots=5"]}}}


def plan_of(*grids, seeds=None, overrides=()) -> Plan:
    plan = Plan()
    for index, grid in enumerate(grids):
        plan.add_table(f"table{index}", Grid.model_validate(grid), seeds, list(overrides))
    return plan
