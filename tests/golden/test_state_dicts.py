"""Saved tensors keep their names and shapes, so that moving code never breaks a checkpoint."""

import json

import pytest
from golden.state_dicts import FILE, cases, state_dicts

STORED = json.loads(FILE.read_text())


@pytest.mark.parametrize("name", cases())
def test_saved_tensors_keep_names_and_shapes(name):
    """A component of one's own is not stored and free to change."""
    if name not in STORED:
        pytest.skip("not stored: python tests/golden/state_dicts.py")
    assert state_dicts(name) == STORED[name], "translate the old names in engine/legacy.py"
