#!/usr/bin/env bash
# The test suite, in the same environment as train.sh: bash scripts/run_tests.sh [pytest arguments]
set -euo pipefail
source "$(dirname "${BASH_SOURCE[0]}")/environment.sh"
"$PYTHON" -m ruff check .
exec "$PYTHON" -m pytest "$@"
