#!/usr/bin/env bash
# On a cluster's login node, which has internet: make the environment that the compute nodes will use.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
source scripts/setup.sh
"$PYTHON" -m nanochat --version
echo "environment ready: $PYTHON"
