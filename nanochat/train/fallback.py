"""What happens where data is missing: learning something else instead is only for runs whose
owner cannot miss it.
"""

from __future__ import annotations

import os
import sys

from nanochat.runtime.errors import rank

# Variables that batch systems and torchrun set for their processes.
UNATTENDED = {
    "SLURM_JOB_ID": "a SLURM job",
    "PBS_JOBID": "a PBS job",
    "LSB_JOBID": "an LSF job",
    "TORCHELASTIC_RUN_ID": "a torchrun job",
}


def fall_back(flag: str, missing: str, instead: str, device_type: str | None) -> str:
    """The notice that `instead` is learned, for the beginning and the end of the run.

    Raises ValueError in a batch job, under torchrun and on a GPU: hours there are spent on what was
    asked for. `flag` chooses what is learned, such as --mixture; `missing`: what is not there and
    how to get it.
    """
    where = unattended(device_type)
    if where:
        raise ValueError(
            f"{missing}\n{flag}=auto learns something else instead only on a machine of your own, "
            f"and this is {where}; fetch the data, or write {flag}={instead} to learn that"
        )
    missing = missing.replace("\n", "\nWARNING:   ")
    return "\n".join(
        (
            f"WARNING: {flag}=auto did not find its data and learns {instead} instead.",
            f"WARNING:   {missing}",
            f"WARNING: The model will know what {instead} teaches and nothing else.",
        )
    )


def unattended(device_type: str | None) -> str:
    """What kind of run this is, if it is one that nobody watches; empty where somebody does."""
    for variable, kind in UNATTENDED.items():
        if os.environ.get(variable):
            return kind
    if int(os.environ.get("WORLD_SIZE") or 1) > 1:
        return "a run of several processes"
    import torch

    on_gpu = device_type == "cuda" or (device_type is None and torch.cuda.is_available())
    return "a run on a GPU" if on_gpu else ""


def skipped_stages(stage: str, source: str) -> str:
    """The notice that a model goes into a stage without what comes before it; empty when there is
    none.
    """
    if source != "base" or stage == "mid":
        return ""
    skipped = {
        "sft": "midtraining, which teaches conversations, multiple choice and tools: fine-tuning "
        "is too short for that. Run `python -m scripts.mid_train` first, then this with "
        "--source=mid",
        "rl": "midtraining and fine-tuning: it will hardly give an answer that can be paid. Run "
        "`python -m scripts.mid_train` and `python -m scripts.chat_sft` first, then this with "
        "--source=sft",
    }
    return f"WARNING: this base model has not had {skipped[stage]}."


def say(notice: str) -> None:
    """Print a notice once, whatever the number of processes."""
    if notice and rank() == "0":
        print(notice, file=sys.stderr, flush=True)
