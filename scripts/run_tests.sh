#!/usr/bin/env bash
# The test suite, with all requirements: bash scripts/run_tests.sh [pytest arguments]
# One process per core, eight at most; -n 0 for one process alone (as a debugger needs).
set -euo pipefail
REQUIREMENTS=requirements.txt
source "$(dirname "${BASH_SOURCE[0]}")/environment.sh"
"$PYTHON" -m ruff check .
exec "$PYTHON" -m pytest -n logical --maxprocesses 8 --dist worksteal "$@"
