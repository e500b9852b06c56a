# Sourced by the other shell scripts: leaves $PYTHON pointing at an environment with nanochat and its pinned
# dependencies installed. Does nothing when that is already so, so a prepared checkout needs no network.
#
#   NANOCHAT_EXTRAS=dev         also the test and lint tools (test.sh sets it)
#   NANOCHAT_VENV=.venv         where the environment is
#   NANOCHAT_PYTHON=python3.12  which Python to make it with (3.10 to 3.13)
#   NANOCHAT_TORCH_INDEX=URL    package index to take torch from; needed only where the configured index has no
#                               CPU build and the large default one is unwanted
#   NANOCHAT_SKIP_SETUP=1       use the Python that is active, install nothing

ROOT="$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)"
cd "$ROOT"

nanochat_say() { printf '%s\n' "$*" >&2; }
nanochat_die() { nanochat_say "error: $*"; exit 1; }

# A Python of a version that the package supports.
nanochat_find_python() {
    local candidate
    for candidate in ${NANOCHAT_PYTHON:-python3 python3.13 python3.12 python3.11 python3.10 python}; do
        if "$candidate" -c 'import sys; sys.exit(not (3, 10) <= sys.version_info[:2] <= (3, 13))' 2>/dev/null; then
            command -v "$candidate"
            return
        fi
    done
    nanochat_die "no Python 3.10 to 3.13 found; install one, or name it: NANOCHAT_PYTHON=/path/to/python3"
}

# What the environment must have been made from to count as up to date; it also names the checkout, because the
# package is installed in place.
nanochat_fingerprint() {
    { cat pyproject.toml constraints.txt scripts/setup.sh; echo "$ROOT"; "$VENV/bin/python" -V; } 2>&1 |
        { sha256sum 2>/dev/null || shasum -a 256; } | cut -d ' ' -f 1
}

nanochat_has_gpu() { command -v nvidia-smi >/dev/null 2>&1 && nvidia-smi -L 2>/dev/null | grep -q GPU; }

nanochat_pip() {
    if command -v uv >/dev/null 2>&1; then
        uv pip install --python "$VENV/bin/python" "$@"
    else
        "$VENV/bin/python" -m pip install --quiet --no-input --disable-pip-version-check "$@"
    fi
}

nanochat_make_venv() {
    local base
    if command -v uv >/dev/null 2>&1 && [ -z "${NANOCHAT_PYTHON:-}" ]; then
        uv venv --quiet --python '>=3.10,<3.14' "$VENV" && return  # uv also fetches a Python where there is none
    fi
    base="$(nanochat_find_python)" || exit 1
    nanochat_say "Making $VENV with $("$base" -V) ..."
    "$base" -m venv "$VENV" ||
        nanochat_die "could not make $VENV; on Debian and Ubuntu install python3-venv, or install uv"
}

# torch first, because which build to take depends on the machine and no requirement can say that.
nanochat_install_torch() {
    local version
    version="$(sed -n 's/^torch==//p' constraints.txt)"
    if "$VENV/bin/python" -c "import importlib.metadata as m, sys; sys.exit(m.version('torch').split('+')[0] != '$version')" 2>/dev/null; then
        return
    fi
    if [ -n "${NANOCHAT_TORCH_INDEX:-}" ]; then
        nanochat_pip --index-url "$NANOCHAT_TORCH_INDEX" "torch==$version"
    elif [ "$(uname -s)" != Linux ] || nanochat_has_gpu; then
        nanochat_pip -c constraints.txt "torch==$version"
    elif command -v uv >/dev/null 2>&1; then
        uv pip install --python "$VENV/bin/python" --torch-backend=cpu "torch==$version"
    elif ! nanochat_pip -c constraints.txt "torch==$version+cpu" 2>/dev/null; then
        nanochat_say "The package index has no CPU build of torch $version for this Python: taking the default build (large;"
        nanochat_say "it works without a GPU). To avoid it set NANOCHAT_TORCH_INDEX to an index of CPU builds, or install uv."
        nanochat_pip -c constraints.txt "torch==$version"
    fi
}

nanochat_setup() {
    local extras="${NANOCHAT_EXTRAS:-}" stamp
    VENV="${NANOCHAT_VENV:-$ROOT/.venv}"
    PYTHON="$VENV/bin/python"
    stamp="$VENV/.nanochat-installed${extras:+-$extras}"
    if [ -x "$PYTHON" ] && [ -f "$stamp" ] && [ "$(cat "$stamp")" = "$(nanochat_fingerprint)" ]; then
        return
    fi
    if ! [ -x "$PYTHON" ]; then
        nanochat_make_venv
    fi
    nanochat_say "Installing the pinned dependencies (once; this is the step that needs a network) ..."
    nanochat_install_torch || nanochat_die "could not install torch; check the network and the package index"
    nanochat_pip -c constraints.txt -e ".${extras:+[$extras]}" ||
        nanochat_die "could not install the dependencies; check the network and the package index"
    nanochat_fingerprint >"$stamp"
    [ -z "$extras" ] || cp "$stamp" "$VENV/.nanochat-installed"
}

if [ -n "${NANOCHAT_SKIP_SETUP:-}" ]; then
    PYTHON="$(nanochat_find_python)" || exit 1
else
    nanochat_setup
fi
export PYTHON
