"""Saved tensors keep their names and shapes, so that moving code never breaks a checkpoint."""

import json

import pytest
from golden.state_dicts import FILE, cases, state_dicts

STORED = json.loads(FILE.read_text())


@pytest.mark.parametrize("name", cases())
def test_saved_tensors_keep_names_and_shapes(name):
    assert name in STORED, "a new component: python tests/golden/state_dicts.py"
    assert state_dicts(name) == STORED[name], "translate the old names in engine/legacy.py"


def test_no_stored_component_is_gone():
    assert STORED.keys() == cases().keys()
