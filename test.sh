#!/usr/bin/env bash
# Lint, types, then the tests; needs no network once set up. Arguments go to pytest: bash test.sh tests/runtime -x
set -uo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")"
export NANOCHAT_EXTRAS=dev
source scripts/setup.sh
failed=0
"$PYTHON" -m ruff check . || failed=1
"$PYTHON" -m ruff format --check . || failed=1
"$PYTHON" -m mypy || failed=1
[ "$failed" = 0 ] || echo "lint or types failed (above); running the tests all the same" >&2
"$PYTHON" -m pytest "$@" || failed=1
exit "$failed"
