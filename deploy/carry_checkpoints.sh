# Sourced by the jobs on rented machines: bring the checkpoints of $HF_REPO here, then send what is new there every
# $PUSH_EVERY_S seconds and once more at the end. A disk of a lost machine is gone, and not every cloud can mount a bucket.
#
# Checkpoints are renamed into place and their meta file comes last, so what is sent in the middle of a save is an
# incomplete step, which loading passes over.

if [ -n "${HF_REPO:-}" ]; then
    : "${HF_TOKEN:?error: HF_REPO is set and HF_TOKEN is not; pass it with: sky launch --secret HF_TOKEN}"
    command -v hf >/dev/null || "${PYTHON:-python}" -m pip install -q huggingface_hub
    mkdir -p "$NANOCHAT_BASE_DIR"
    hf download "$HF_REPO" --local-dir "$NANOCHAT_BASE_DIR" ||
        echo "nothing to bring from $HF_REPO yet" >&2

    send_checkpoints() {
        hf upload --private "$HF_REPO" "$NANOCHAT_BASE_DIR" . \
            --include "*_checkpoints/*" --include "tokenizer/*" --include "report/*" --include recipes.json \
            --delete "*_checkpoints/*" ||
            echo "warning: checkpoints were not sent to $HF_REPO; they will be with the next ones" >&2
    }
    if [ "${PUSH_EVERY_S:-900}" != 0 ]; then
        (while sleep "${PUSH_EVERY_S:-900}"; do send_checkpoints; done) &
        CARRIER=$!
        trap 'kill "$CARRIER" 2>/dev/null; send_checkpoints' EXIT
    fi
fi
