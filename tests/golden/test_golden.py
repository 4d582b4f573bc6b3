"""What must not change unnoticed, against files written when it last did so on purpose."""

import json

import pytest
from golden.curves import PAIRS, curve
from golden.curves import STORED as CURVES
from golden.defaults import STORED, changed, current

from scripts.tables.plan import VERSION


def test_no_default_has_changed_under_the_digests_of_runs():
    """What lacks in the file would be guarded by nothing."""
    stored, now = json.loads(STORED.read_text()), current()
    assert stored["version"] == VERSION, "python tests/golden/defaults.py writes the file again"
    assert changed(stored["defaults"], now) == [], "raise VERSION, then python tests/golden/defaults.py"
    assert stored["defaults"] == now, "new options: python tests/golden/defaults.py"


def test_changes_are_found_at_any_depth_and_additions_are_none():
    stored = {"a": {"b": {"c": 1, "d": [1, 2]}}, "gone": {"x": 1}}
    assert changed(stored, {"a": {"b": {"c": 1, "d": [1, 2], "new": 3}}}) == []
    assert changed(stored, {"a": {"b": {"c": 2, "d": [1, 3]}}}) == ["a.b.c: 1, now 2", "a.b.d: [1, 2], now [1, 3]"]


@pytest.mark.parametrize("backbone,method", PAIRS)
def test_the_first_losses_are_those_stored(backbone, method):
    stored = json.loads(CURVES.read_text())
    assert f"{backbone} {method}" in stored, "a new component: python tests/golden/curves.py"
    assert curve(backbone, method) == pytest.approx(stored[f"{backbone} {method}"], rel=1e-3)


def test_the_stored_losses_tell_all_components_apart():
    firsts = [values[0] for values in json.loads(CURVES.read_text()).values()]
    assert len(firsts) > 1 and len(set(firsts)) == len(firsts)
