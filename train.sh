#!/usr/bin/env bash
# Train and evaluate: bash train.sh [CONFIG.yaml ...] [key=value ...]; later ones win.
# Without a file: the default run in two stages, the plain backbone and the paper's method from there.
# All overrides go to the method's stage; those about data, backbone, seed and machine go to both.
# method=plain is the first stage alone. The data are the embedded benchmark, unless
# dataset=NAME dataset.root=DIR says otherwise.
set -euo pipefail
source "$(dirname "${BASH_SOURCE[0]}")/scripts/environment.sh"
both=() dataset=synthetic plain=
for argument in "$@"; do
    case "$argument" in
        dataset=*) dataset="${argument#dataset=}"; both+=("$argument") ;;
        dataset.*=* | backbone=* | backbone.*=* | train.seed=* | runtime.*=* | run.root=*) both+=("$argument") ;;
        method=plain) plain=1 ;;
        -* | *.yaml | *.yml) exec "$PYTHON" main_train.py "$@" ;;
        *=*) ;;
        *) exec "$PYTHON" main_train.py "$@" ;;
    esac
done
stages=(configs/paper_plain.yaml configs/paper.yaml)
[ "$dataset" != synthetic ] || stages=(configs/embedded_plain.yaml configs/embedded.yaml)
[ -z "$plain" ] || exec "$PYTHON" main_train.py "${stages[0]}" "$@"
"$PYTHON" main_train.py "${stages[0]}" ${both[@]+"${both[@]}"}
exec "$PYTHON" main_train.py "${stages[1]}" "$@"
