#!/usr/bin/env bash
# The whole pipeline, from text to a chat model and its report, on whatever this machine has: with GPUs the d20 recipe
# (561 million parameters) and real data, without one the CPU recipe on the embedded world. Sets itself up. Stages that are complete are skipped
# when it is run again; --fresh starts over. WANDB_RUN=name also logs to W&B.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")"
source scripts/setup.sh
exec "$PYTHON" -m nanochat recipe run auto "$@"
