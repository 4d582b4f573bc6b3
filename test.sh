#!/usr/bin/env bash
# Evaluate with a modality missing:
#   bash test.sh [RUN_DIR or CHECKPOINT] [--missing none|audio|visual|both|all] [--ratio R] [--segments R] [key=value ...]
# Default: the latest run, complete + audio missing + visual missing.
set -euo pipefail
here="$PWD"
source "$(dirname "${BASH_SOURCE[0]}")/scripts/environment.sh"
if [ $# -gt 0 ] && [[ "$1" != -* && "$1" != *=* ]]; then
    checkpoint="$1"          # a relative path is from where the user stands
    [[ "$checkpoint" = /* || "$here" = "$PWD" ]] || checkpoint="$here/$checkpoint"
    shift
    exec "$PYTHON" main_test.py --checkpoint "$checkpoint" "$@"
fi
exec "$PYTHON" main_test.py "$@"
