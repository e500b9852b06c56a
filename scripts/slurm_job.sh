# Sourced by the SLURM batch scripts: logs, environment, e-mail, and `stage`, which runs one part of the pipeline once.
#
# The job's folder under the base directory remembers which stages are complete. It is named after the job number, which
# stays the same when the job goes back into the queue; a new job begins anew.

MOST_RESTARTS=20
MOST_CRASHES=3 # of one stage, and cuts of one evaluation, without a new checkpoint
STAGES=" base base_loss base_eval mid mid_eval sft sft_eval "

slurm_die() { echo "error: $*" >&2; exit 2; }

# slurm_begin LOG FILE WORDS: everything before the first stage. Outside of a job it submits the file instead.
slurm_begin() {
    [ -f scripts/setup.sh ] || slurm_die "the checkout is not here ($PWD): submit from its top folder"
    [ -n "${SLURM_JOB_ID:-}" ] || submit "${@:2}"
    mkdir -p logs
    exec >>"logs/$1_$SLURM_JOB_ID.out" 2>>"logs/$1_$SLURM_JOB_ID.err"
    echo "job $SLURM_JOB_ID on ${SLURM_JOB_NODELIST:-?}, start number $((${SLURM_RESTART_COUNT:-0} + 1))," \
        "$(date '+%Y-%m-%d %H:%M:%S')"
    source scripts/settings.sh
    export NANOCHAT_BASE_DIR="${NANOCHAT_BASE_DIR:-$HOME/.cache/nanochat}"
    export HF_HUB_OFFLINE="${HF_HUB_OFFLINE:-1}" WANDB_RUN="${WANDB_RUN:-dummy}"
    export WANDB_MODE="${WANDB_MODE:-$(nanochat_setting wandb_mode)}"
    export WANDB_MODE="${WANDB_MODE:-offline}" WANDB_DIR="${WANDB_DIR:-$NANOCHAT_BASE_DIR}"
    if [ -z "${NANOCHAT_SKIP_SETUP:-}" ] && ! [ -f "${NANOCHAT_VENV:-.venv}/.nanochat-installed" ]; then
        slurm_die "no environment at ${NANOCHAT_VENV:-.venv}; on the login node run: bash scripts/setup_environment.sh"
    fi
    source scripts/setup.sh
    DONE="$NANOCHAT_BASE_DIR/slurm/$SLURM_JOB_ID"
    mkdir -p "$DONE"
    warn_of_partition
    slurm_mail
    ranks_of_job
    # The queue's comment keeps up with a long stage.
    (trap 'kill $!; exit' TERM; while :; do sleep 300 & wait $!; note_metrics; done) &
    # shellcheck disable=SC2064  # now
    trap "kill $! 2>/dev/null || true" EXIT
}

# Hand the script to SLURM with what cluster.env says, and show what SLURM says to that.
submit() {
    source scripts/setup.sh
    command -v sbatch >/dev/null || slurm_die "not inside a SLURM job, and there is no sbatch on this machine"
    local options
    options="$("$PYTHON" -m nanochat cluster options)" || exit 2
    # shellcheck disable=SC2086  # several words
    sbatch $options "$@" || slurm_die "SLURM refused (above); correct cluster.env, or write it anew: nanochat cluster init"
    exit 0
}

# What cluster.env asks for reaches a job only through `bash scripts/...slurm`: sbatch itself reads no such file.
warn_of_partition() {
    local wanted
    wanted="$(nanochat_setting partition)"
    [ -z "$wanted" ] || [ "$wanted" = "${SLURM_JOB_PARTITION:-$wanted}" ] ||
        echo "warning: this job is in partition $SLURM_JOB_PARTITION, and cluster.env says $wanted: start it with bash, not sbatch" >&2
}

# The address for mails: sbatch --mail-user, else email=... in .env.local or cluster.env, else $EMAIL. The mail about
# the beginning has to come from here, since SLURM hears of the address when the job has begun.
slurm_mail() {
    local address
    if [[ "$(scontrol show job "$SLURM_JOB_ID" 2>/dev/null)" == *MailUser=* ]]; then return; fi
    address="$(nanochat_setting email)"
    address="${address:-${EMAIL:-}}"
    [ -n "$address" ] || return 0
    scontrol update "JobId=$SLURM_JOB_ID" "MailUser=$address" MailType=BEGIN,END,FAIL,REQUEUE 2>/dev/null ||
        echo "warning: could not ask for mails to $address; use sbatch --mail-type=ALL --mail-user=$address" >&2
    if [ "${SLURM_RESTART_COUNT:-0}" = 0 ] && command -v mail >/dev/null; then
        echo "on ${SLURM_JOB_NODELIST:-?}, logs in $PWD/logs" |
            mail -s "SLURM Job_id=$SLURM_JOB_ID Name=${SLURM_JOB_NAME:-nanochat} Began" "$address" || true
    fi
}

# One process for each GPU, or one for each node without GPUs, with its share of the cores. srun does not take over
# --cpus-per-task from the job, and a job for whole nodes has not asked for their GPUs by number.
ranks_of_job() {
    local gpus="${SLURM_GPUS_ON_NODE:-0}" per_node cores device
    device="$(nanochat_setting device_type)"
    [ "$device" != cpu ] || gpus=0
    per_node="${SLURM_NTASKS_PER_NODE:-$gpus}"
    [ "$per_node" -gt 0 ] || per_node=1
    cores="${SLURM_CPUS_PER_TASK:-$((${SLURM_CPUS_ON_NODE:-1} / per_node))}"
    [ "$cores" -gt 0 ] || cores=1
    RANKS=(srun "--ntasks-per-node=$per_node" "--ntasks=$((per_node * ${SLURM_JOB_NUM_NODES:-1}))" "--cpus-per-task=$cores")
    [ "$gpus" -eq 0 ] || RANKS+=("--gres=gpu:$gpus")
    [ -n "$device" ] || [ "$gpus" -eq 0 ] || device=cuda
    COMMON=()
    [ -z "$device" ] || COMMON=("--device_type=$device")
}

# sort_words WORDS: --flag=value for base_train, stage.flag=value for another stage, --device-type for all.
declare -A WORDS_OF
sort_words() {
    local word name
    depth=20 tag="${tag:-}"
    for word in "$@"; do
        case "$word" in
        --depth=*) depth="${word#*=}"; continue ;;
        --model[-_]tag=*) tag="${word#*=}"; continue ;;
        --device[-_]type=*) COMMON=("$word"); continue ;;
        --*=*) name=base ;;
        [a-z]*.*=*) name="${word%%.*}" word="--${word#*.}" ;;
        --*) name=base; [[ "$word" != --depth && "$word" != --model?tag && "$word" != --device?type ]] ||
            slurm_die "write $word=VALUE, with an equals sign" ;;
        *) slurm_die "$word: write --flag=value for base_train, or stage.flag=value for one of:$STAGES" ;;
        esac
        [[ "$STAGES" == *" $name "* ]] || slurm_die "$word: no stage $name; there are:$STAGES"
        WORDS_OF[$name]+="$word"$'\n'
    done
    [ -n "$tag" ] || tag="d$depth"
}

# doctor_of OPTIONS: stop now, not after hours, for want of anything. Its findings are the log's first lines.
doctor_of() {
    local device=()
    [ "${COMMON[*]:-}" != "${COMMON[*]#*cpu}" ] && device=(--override=base.device_type=cpu)
    "$PYTHON" -m nanochat doctor --offline --recipe=node8 "$@" "${device[@]}" ||
        slurm_die "not everything is there (above); nothing has been started"
}

# newest_meta STAGE: the newest complete checkpoint of a training; finished META: whether it is its last.
newest_meta() { ls "$NANOCHAT_BASE_DIR/${1/#sft/chatsft}_checkpoints/$tag/"meta_*.json 2>/dev/null | tail -n 1 || true; }
finished() { [ -n "$1" ] && grep -q '"metrics"' "$1"; } # the final numbers, which a stopped training has not

# The last metrics, for `squeue` and mails.
note_metrics() {
    local line
    line="$("$PYTHON" -m nanochat cluster status --job="$SLURM_JOB_ID" --line 2>/dev/null)" || return 0
    [ -z "$line" ] || scontrol update "JobId=$SLURM_JOB_ID" "Comment=$line" 2>/dev/null || true
}

# stage NAME train|eval|once MODULE [FLAGS]: under srun, one process for each GPU; `once` in a single one.
stage() {
    local name="$1" kind="$2" code=0 meta="" words more=()
    shift 2
    if [ -e "$DONE/$name" ]; then
        echo "$name: complete, skipped"
        return
    fi
    words=("$PYTHON" -m "$@")
    if [ "$kind" != once ]; then
        mapfile -t more < <(printf '%s' "${WORDS_OF[$name]:-}")
        words+=("${COMMON[@]}" "${more[@]}")
    fi
    if [ "$kind" = train ]; then
        meta="$(newest_meta "$name")"
        if [ -n "${KEEP_COMPLETE:-}" ] && [ -z "${NANOCHAT_REPLACE:-}" ] && finished "$meta"; then
            echo "$name: trained before ($meta), skipped; NANOCHAT_REPLACE=1 trains it again"
            touch "$DONE/$name"
            return
        fi
        # This job has been here before, or another one was lost in the middle.
        if [ -e "$DONE/$name.started" ] || { [ -n "${KEEP_COMPLETE:-}" ] && [ -n "$meta" ] && ! finished "$meta"; }; then
            words+=(--resume)
        fi
        touch "$DONE/$name.started"
        words+=("--run=$WANDB_RUN")
        [ -z "${NANOCHAT_REPLACE:-}" ] || words+=(--replace) # of models that other jobs left: to a dated folder
    fi
    echo "$name: ${words[*]}"
    echo "$name $tag" >"$DONE/running"
    if [ "$kind" = once ]; then
        "${words[@]}" || code=$?
    else
        # A rank that ends first must not take down the one that is still saving; lost ranks are met by our own watch.
        "${RANKS[@]}" --kill-on-bad-exit=0 "${words[@]}" || code=$?
    fi
    note_metrics
    [ "$code" = 0 ] || stopped "$name" "$kind" "$code"
    touch "$DONE/$name"
}

# stopped NAME KIND CODE: back into the queue where that helps, else the end.
stopped() {
    local name="$1" kind="$2" code="$3"
    case "$kind $code" in
    "eval 138") # the signal before the time limit: an evaluation starts over
        again_and_again "$name" "$code" "reached the time limit; ask for more with --time" ;;
    *" 75" | *" 76" | *" 138") ;; # saved and stopped; a rank was lost; the signal came before training began
    *" 134" | *" 135" | *" 137" | *" 139" | *" 143") # a rank was killed or aborted: srun ends with the highest code of all
        again_and_again "$name" "$code" "lost a process; out of memory?" ;;
    *)
        echo "error: $name ended with $code (above); complete stages are kept" >&2
        exit "$code"
        ;;
    esac
    if [ "${SLURM_RESTART_COUNT:-0}" -ge "$MOST_RESTARTS" ]; then
        echo "error: $name ended with $code, and the job was restarted $MOST_RESTARTS times already" >&2
        exit "$code"
    fi
    echo "$name: ended with $code, back into the queue"
    scontrol requeue "$SLURM_JOB_ID"
    exit 0
}

# again_and_again NAME CODE WHY: the end, where it happened MOST_CRASHES times before without a new checkpoint.
again_and_again() {
    local file="$DONE/$1.crashes" times=0 at
    at="$(newest_meta "$1")"
    if [ -f "$file" ] && [ "$(sed -n 2p "$file")" = "$at" ]; then
        times="$(sed -n 1p "$file")"
    fi
    times=$((times + 1))
    printf '%s\n%s\n' "$times" "$at" >"$file"
    if [ "$times" -gt "$MOST_CRASHES" ]; then
        echo "error: $1 ended with $2 $times times without a new checkpoint: it $3" >&2
        exit "$2"
    fi
}
