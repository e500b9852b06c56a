#!/usr/bin/env bash
# Lint, types, then the tests; needs no network once set up. Arguments go to pytest: bash test.sh tests/runtime -x
set -uo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")"
export NANOCHAT_EXTRAS=dev
source scripts/setup.sh
# Tests of accounts also run on PostgreSQL. In a container it is installed here; elsewhere they say what they miss.
if ! ls /usr/lib/postgresql/*/bin/initdb >/dev/null 2>&1 && [ "$(id -u)" = 0 ] && command -v apt-get >/dev/null; then
    apt-get install -y --no-install-recommends postgresql >/dev/null 2>&1 ||
        echo "PostgreSQL could not be installed: its tests will be skipped" >&2
fi
failed=0
"$PYTHON" -m ruff check . || failed=1
"$PYTHON" -m ruff format --check . || failed=1
"$PYTHON" -m mypy || failed=1
[ "$failed" = 0 ] || echo "lint or types failed (above); running the tests all the same" >&2
"$PYTHON" -m pytest "$@" || failed=1
exit "$failed"
