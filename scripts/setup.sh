# Sourced by the other shell scripts: leaves $PYTHON pointing at an environment with nanochat and its pinned
# dependencies installed. Does nothing when that is already so, so a prepared checkout needs no network.
#
#   NANOCHAT_EXTRAS=dev         also the test and lint tools (test.sh sets it); wandb: Weights & Biases; gpu: the GPU
#                               build of torch also where no GPU is seen, as on a login node. Several: dev,wandb
#   NANOCHAT_VENV=.venv         where the environment is
#   NANOCHAT_PYTHON=python3.12  which Python to make it with (3.10 to 3.13)
#   NANOCHAT_TORCH_INDEX=URL    package index to take torch from; needed only where the configured index has no
#                               CPU build and the large default one is unwanted
#   NANOCHAT_SKIP_SETUP=1       use the Python that is active, install nothing

ROOT="$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)"
cd "$ROOT"
[ ! -f scripts/settings.sh ] || source scripts/settings.sh

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
    candidate="${NANOCHAT_PYTHON:-python3}"
    nanochat_die "no Python 3.10 to 3.13 found ($candidate is $("$candidate" -V 2>&1 || true)); install one, load its" \
        "module, or name it: NANOCHAT_PYTHON=/path/to/python3"
}

# What the environment must have been made from to count as up to date; it also names the checkout, because the
# package is installed in place.
nanochat_fingerprint() {
    { cat pyproject.toml constraints.txt scripts/setup.sh; echo "$ROOT"; "$PYTHON" -V; } 2>&1 |
        { sha256sum 2>/dev/null || shasum -a 256; } | cut -d ' ' -f 1
}

nanochat_has_gpu() { command -v nvidia-smi >/dev/null 2>&1 && nvidia-smi -L 2>/dev/null | grep -q GPU; }

nanochat_has_uv() { command -v uv >/dev/null 2>&1; }

nanochat_pip() {
    if nanochat_has_uv; then
        uv pip install --python "$PYTHON" "$@" && return
        nanochat_say "uv could not do that, trying pip ..."
    fi
    nanochat_pip_alone install --quiet "$@"
}

# An environment that uv made may have no pip in it.
nanochat_pip_alone() {
    if ! "$PYTHON" -m pip --version >/dev/null 2>&1; then
        "$PYTHON" -m ensurepip >/dev/null 2>&1 ||
            { nanochat_say "$VENV has no pip: install uv, or remove $VENV so that it is made anew"; return 1; }
    fi
    "$PYTHON" -m pip "$1" --no-input --disable-pip-version-check "${@:2}"
}

nanochat_make_venv() {
    local base
    if nanochat_has_uv && [ -z "${NANOCHAT_PYTHON:-}" ]; then # uv also fetches a Python where there is none
        uv venv --quiet --seed --python '>=3.10,<3.14' "$VENV" 2>/dev/null && return
        uv venv --quiet --python '>=3.10,<3.14' "$VENV" && return
    fi
    base="$(nanochat_find_python)" || exit 1
    nanochat_say "Making $VENV with $("$base" -V) ..."
    "$base" -m venv "$VENV" ||
        nanochat_die "could not make $VENV; on Debian and Ubuntu install python3-venv, or install uv"
}

# Version of the installed torch, such as 2.13.0+cpu; nothing when there is none.
nanochat_torch() { "$PYTHON" -c "import importlib.metadata as m; print(m.version('torch'))" 2>/dev/null || true; }

# Builds that no plain version number names are kept in .torch, where uv looks for them too: `uv run` would otherwise put
# the default build in their place. Arguments: the requirement, then options of pip.
nanochat_keep_torch() {
    nanochat_pip_alone download --quiet --retries 1 --timeout 20 --no-deps --dest .torch "$@" 2>/dev/null
}

# torch first, because which build to take depends on the machine and no requirement can say that.
nanochat_install_torch() {
    local version installed want=cpu
    version="$(sed -n 's/^torch==//p' constraints.txt)"
    installed="$(nanochat_torch)"
    if nanochat_has_gpu || [[ ",${NANOCHAT_EXTRAS:-}," == *,gpu,* ]]; then
        want=gpu
    elif [ "$(uname -s)" != Linux ]; then
        want=default
    fi
    if [ "${installed%%+*}" = "$version" ] && [ "$want/${installed#*+}" != gpu/cpu ]; then
        return
    fi
    rm -f .torch/*.whl uv.lock
    if [ -n "${NANOCHAT_TORCH_INDEX:-}" ]; then
        nanochat_keep_torch "torch==$version" --index-url "$NANOCHAT_TORCH_INDEX" || true
        nanochat_pip --index-url "$NANOCHAT_TORCH_INDEX" --find-links .torch "torch==$version"
        return
    fi
    if [ "$want" = cpu ]; then
        if nanochat_keep_torch "torch==$version+cpu" ||
            nanochat_keep_torch "torch==$version+cpu" --index-url https://download.pytorch.org/whl/cpu; then
            nanochat_pip --find-links .torch -c constraints.txt "torch==$version+cpu" && return
        fi
        nanochat_say "No package index here has a CPU build of torch $version for this Python: taking the default build"
        nanochat_say "(large; it works without a GPU). NANOCHAT_TORCH_INDEX=URL names an index of CPU builds."
    elif [ "$want" = gpu ]; then # === because == would also take a CPU build, 2.13.0+cpu, where the index has one
        nanochat_pip -c constraints.txt "torch===$version" && return
    fi
    nanochat_pip -c constraints.txt "torch==$version" || return
    case "$want/$(nanochat_torch)" in
    gpu/*+cpu) nanochat_say "warning: the package index has only a CPU build of torch: GPUs will not be used" ;;
    esac
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
    nanochat_pip -c constraints.txt -e ".[serve${extras:+,$extras}]" ||
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
