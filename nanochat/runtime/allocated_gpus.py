"""GPUs that a job was given although torch cannot see them: a CPU build, or a driver that does not
fit. A run would then go on on the CPU, a hundred times slower, without a word.
"""

from __future__ import annotations

import re
from collections.abc import Mapping

from nanochat.runtime.programs import output_of

NONE = ("", "-1", "none", "nodevfiles", "(null)", "no_dev_files")
LISTS = ("SLURM_STEP_GPUS", "SLURM_JOB_GPUS", "GPU_DEVICE_ORDINAL")  # numbers of GPUs: 0,1
COUNTS = (  # 8, or a100:8
    "SLURM_GPUS_ON_NODE",
    "SLURM_GPUS",
    "SLURM_GPUS_PER_NODE",
    "SLURM_GPUS_PER_TASK",
)


def allocated_gpus(env: Mapping[str, str]) -> str | None:
    """What says that there are GPUs, such as `SLURM_GPUS_ON_NODE=8`; None when nothing does, or
    when they are hidden on purpose (`CUDA_VISIBLE_DEVICES=`).
    """
    if "CUDA_VISIBLE_DEVICES" in env:
        value = env["CUDA_VISIBLE_DEVICES"]
        return None if value.strip().lower() in NONE else f"CUDA_VISIBLE_DEVICES={value}"
    for name in (*LISTS, *COUNTS):
        value = env.get(name, "").strip()
        nothing = name in COUNTS and re.fullmatch(r"(.*:)?0+", value)
        if value.lower() not in NONE and not nothing:
            return f"{name}={value}"
    return _listed()


def _listed() -> str | None:
    """What `nvidia-smi` finds."""
    told = output_of("nvidia-smi", "-L", timeout_s=20.0)
    n_gpus = len(re.findall(r"^GPU \d+:", told or "", re.MULTILINE))
    return f"nvidia-smi lists {n_gpus} GPU(s)" if n_gpus else None
