# Sourced by the SLURM batch scripts: what follows the base model $tag, and the report.
stage mid train scripts.mid_train --model_tag="$tag"
stage mid_eval eval scripts.chat_eval -i mid --model_tag="$tag"
stage sft train scripts.chat_sft --model_tag="$tag"
stage sft_eval eval scripts.chat_eval -i sft --model_tag="$tag"
stage report once nanochat.report generate
