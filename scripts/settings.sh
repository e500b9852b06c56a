# Sourced by setup.sh and the batch scripts: what this cluster wants to be told, from `name=value` lines in cluster.env
# and .env.local of the checkout. The second wins, and variables that are set win over both. Then its modules.

# nanochat_setting NAME: its value, with $USER, ${SCRATCH} and ~ replaced; nothing where no file has it.
nanochat_setting() {
    local file found value=""
    for file in cluster.env .env.local; do
        [ -f "$file" ] || continue
        found="$(sed -n "s/^[[:space:]]*\(export[[:space:]][[:space:]]*\)\{0,1\}$1[[:space:]]*=[[:space:]]*\(.*\)/\2/p" "$file" |
            tail -n 1 | sed -e "s/^'\([^']*\)'.*/\1/" -e 's/^"\([^"]*\)".*/\1/' -e 's/[[:space:]]*\(#.*\)\{0,1\}$//')"
        value="${found:-$value}"
    done
    while [[ "$value" =~ \$\{?([A-Za-z_][A-Za-z_0-9]*)\}? ]]; do
        value="${value/"${BASH_REMATCH[0]}"/"${!BASH_REMATCH[1]:-}"}"
    done
    printf '%s' "${value/#\~\//$HOME/}"
}

# nanochat_default VARIABLE NAME: set the variable to the setting, unless it is set or there is none.
nanochat_default() {
    local value
    [ -z "${!1:-}" ] || return 0
    value="$(nanochat_setting "$2")"
    [ -z "$value" ] || export "$1=$value"
}

nanochat_modules() {
    local modules init
    modules="$(nanochat_setting modules)"
    [ -n "$modules" ] || return 0
    init="$(nanochat_setting module_init)"
    set +eu # what module systems define is not written for them
    # shellcheck disable=SC1090
    [ -z "$init" ] || source "$init" || { echo "error: module_init=$init: cannot be read on $(uname -n)" >&2; exit 2; }
    if ! type module >/dev/null 2>&1; then
        echo "error: no command \`module\` on $(uname -n) for modules=$modules; leave modules= empty in cluster.env, or name" \
            "the file that makes it: module_init=/etc/profile.d/..." >&2
        exit 2
    fi
    # shellcheck disable=SC2086  # several of them
    module load $modules || { echo "error: module load $modules failed (above); correct modules= in cluster.env" >&2; exit 2; }
    set -eu
}

nanochat_default NANOCHAT_BASE_DIR base_dir
nanochat_default NANOCHAT_VENV venv
nanochat_default HF_HOME hf_home
nanochat_modules
