# Sourced by train.sh, test.sh and scripts/run_tests.sh: leaves in PYTHON an interpreter that has what
# REQUIREMENTS lists: the active one if it fits the ranges, else that of a .venv made from the pins.
cd "$(dirname "${BASH_SOURCE[0]}")/.." || exit 2
REQUIREMENTS="${REQUIREMENTS:-requirements/train.txt}"
PYTHON="${PYTHON:-$(command -v python || command -v python3 || true)}"
if [ -z "$PYTHON" ]; then
    echo "error: no Python was found; install Python 3.11 or newer" >&2
    exit 2
fi
if ! "$PYTHON" scripts/check_environment.py "$REQUIREMENTS" >/dev/null 2>&1; then
    if ! .venv/bin/python scripts/check_environment.py "$REQUIREMENTS" >/dev/null 2>&1; then
        echo "preparing .venv from $REQUIREMENTS (a few minutes, once)"
        "$PYTHON" -m venv .venv || exit 2
        .venv/bin/python -m pip install --quiet --disable-pip-version-check -r "$REQUIREMENTS" || {
            echo "error: installing $REQUIREMENTS failed; see the lines above" >&2
            exit 2
        }
    fi
    PYTHON="$PWD/.venv/bin/python"
fi
export PYTHON
