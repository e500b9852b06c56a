#!/usr/bin/env bash
# On a cluster's login node: what pretraining and its evaluation read. NANOCHAT_SHARDS says how many shards (240: d20).
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
source scripts/setup.sh
"$PYTHON" -m nanochat data fetch extras
"$PYTHON" -m nanochat.dataset -n "${NANOCHAT_SHARDS:-240}"
tokenizer="${NANOCHAT_BASE_DIR:-$HOME/.cache/nanochat}/tokenizer/tokenizer"
if ! [ -f "$tokenizer.json" ] && ! [ -f "$tokenizer.pkl" ]; then
    "$PYTHON" -m scripts.tok_train --max_chars=2000000000
fi
