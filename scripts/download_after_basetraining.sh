#!/usr/bin/env bash
# On a cluster's login node: every data set that midtraining, SFT, RL and their evaluation read.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
source scripts/setup.sh
"$PYTHON" -m nanochat data fetch tasks
