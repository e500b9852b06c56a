# Sourced by the SLURM batch scripts: environment, e-mail, and `stage`, which runs one part of the pipeline once.
#
# The job's folder under the base directory remembers which stages are complete. It is named after the job number, which
# stays the same when the job goes back into the queue; a new job begins anew.

[ -n "${SLURM_JOB_ID:-}" ] || { echo "error: not inside a SLURM job; start it with sbatch" >&2; exit 2; }
[ -f scripts/setup.sh ] || { echo "error: submit from the top folder of the checkout (now in $PWD)" >&2; exit 2; }
export NANOCHAT_BASE_DIR="${NANOCHAT_BASE_DIR:-$HOME/.cache/nanochat}"
export HF_HUB_OFFLINE="${HF_HUB_OFFLINE:-1}" WANDB_MODE="${WANDB_MODE:-offline}" WANDB_RUN="${WANDB_RUN:-dummy}"
if [ -z "${NANOCHAT_SKIP_SETUP:-}" ] && ! [ -f "${NANOCHAT_VENV:-.venv}/.nanochat-installed" ]; then
    echo "error: no environment; on the login node run: bash scripts/setup_environment.sh" >&2
    exit 2
fi
source scripts/setup.sh
DONE="$NANOCHAT_BASE_DIR/slurm/$SLURM_JOB_ID"
mkdir -p "$DONE"

# The address for mails: sbatch --mail-user, else email=... in .env.local, else $EMAIL.
slurm_mail() {
    local address=""
    if [[ "$(scontrol show job "$SLURM_JOB_ID" 2>/dev/null)" == *MailUser=* ]]; then return; fi
    [ ! -f .env.local ] || address="$(sed -n "s/^ *email *= *[\"']\{0,1\}\([^\"' ]*\).*/\1/p" .env.local | tail -n 1)"
    address="${address:-${EMAIL:-}}"
    [ -z "$address" ] || scontrol update "JobId=$SLURM_JOB_ID" "MailUser=$address" MailType=END,FAIL,REQUEUE 2>/dev/null ||
        echo "warning: could not ask for mails to $address; use sbatch --mail-type=END,FAIL --mail-user=$address" >&2
}

# need PATH[|PATH] COMMAND: stop now, not after hours, when something was not brought to the cluster.
need() {
    local path
    for path in ${1//|/ }; do
        [ ! -e "$NANOCHAT_BASE_DIR/$path" ] || return 0
    done
    echo "error: no $NANOCHAT_BASE_DIR/${1%%|*}; on the login node run: $2" >&2
    exit 2
}

# stage NAME train|eval|once MODULE [FLAGS]: under srun, one process for each task; `once` in a single one.
stage() {
    local name="$1" kind="$2" code=0
    shift 2
    if [ -e "$DONE/$name" ]; then
        echo "$name: complete, skipped"
        return
    fi
    local words=("$PYTHON" -m "$@")
    if [ "$kind" = train ]; then
        [ ! -e "$DONE/$name.started" ] || words+=(--resume) # this job has been here before
        touch "$DONE/$name.started"
        words+=("--run=$WANDB_RUN")
        [ -z "${NANOCHAT_REPLACE:-}" ] || words+=(--replace) # of models that other jobs left: to a dated folder
    fi
    echo "$name: ${words[*]}"
    if [ "$kind" = once ]; then
        "${words[@]}" || code=$?
    else
        # A rank that ends first must not take down the one that is still saving; lost ranks are met by our own watch.
        srun --kill-on-bad-exit=0 "${words[@]}" || code=$?
    fi
    case "$code" in
    0) touch "$DONE/$name" ;;
    75 | 76 | 138) # saved and stopped; a rank was lost; the signal before the time limit came in an evaluation
        if [ "${SLURM_RESTART_COUNT:-0}" -ge 20 ]; then
            echo "error: $name ended with $code, and the job was restarted 20 times already" >&2
            exit "$code"
        fi
        echo "$name: ended with $code, back into the queue"
        scontrol requeue "$SLURM_JOB_ID"
        exit 0
        ;;
    *)
        echo "error: $name ended with $code (above); complete stages are kept" >&2
        exit "$code"
        ;;
    esac
}
