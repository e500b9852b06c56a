#!/usr/bin/env bash
# The d32 recipe: the guides' model of 1.9 billion parameters (classic, vocabulary 65,536), about 40 hours of
# pretraining on eight H100. Arguments as for speedrun.sh.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")"
source scripts/setup.sh
exec "$PYTHON" -m nanochat recipe run d32 "$@"
