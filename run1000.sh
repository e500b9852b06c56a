#!/usr/bin/env bash
# The d32 recipe: about 1.9 billion parameters on eight GPUs. Arguments as for speedrun.sh.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")"
source scripts/setup.sh
exec "$PYTHON" -m nanochat recipe run d32 "$@"
