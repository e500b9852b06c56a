#!/usr/bin/env bash
# The whole pipeline on a CPU, then a chat with the result when a person is at the terminal.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
source scripts/setup.sh
"$PYTHON" -m nanochat recipe run cpu "$@"
if [ -t 0 ] && [ -t 1 ]; then
    exec "$PYTHON" -m scripts.chat_cli -i sft
fi
