#!/usr/bin/env bash
# The CPU recipe, also on a machine that has GPUs. Arguments as for speedrun.sh.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
source scripts/setup.sh
exec "$PYTHON" -m nanochat recipe run cpu "$@"
