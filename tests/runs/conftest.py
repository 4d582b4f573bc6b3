"""Fixtures of the run tests; the helpers themselves live in conftest_runs.py, which tests import by name."""

from conftest_runs import in_process, own_data, small  # noqa: F401
