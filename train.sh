#!/usr/bin/env bash
# Train and evaluate: bash train.sh [CONFIG.yaml ...] [key=value ...]; later ones win.
# Without arguments: the paper's method on the embedded benchmark in two stages, each a configuration of its own.
set -euo pipefail
source "$(dirname "${BASH_SOURCE[0]}")/scripts/environment.sh"
if [ $# -eq 0 ]; then
    "$PYTHON" main_train.py configs/embedded_plain.yaml
    exec "$PYTHON" main_train.py configs/embedded.yaml
fi
exec "$PYTHON" main_train.py "$@"
