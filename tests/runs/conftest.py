"""Fixtures of the run tests; the helpers themselves live in tests/commands.py."""

from commands import in_process, own_data, small
