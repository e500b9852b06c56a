"""Is this machine ready to train? `python scripts/test_gpu.py`; exit code 0 when torch can use a
GPU.
"""

from __future__ import annotations

import os
import platform
import sys
import time
from typing import Any

SIZE = 8192  # of the square matrices: large enough that the multiplication, not its start, is timed
REPEATS = 20


def speed_tflops(torch: Any, device: Any) -> float:
    """Trillions of operations a second in one bf16 (else fp16) matrix product."""
    dtype = torch.bfloat16 if torch.cuda.get_device_capability(device) >= (8, 0) else torch.float16
    a = torch.randn(SIZE, SIZE, device=device, dtype=dtype)
    for _ in range(3):
        a @ a
    torch.cuda.synchronize(device)
    started = time.perf_counter()
    for _ in range(REPEATS):
        a @ a
    torch.cuda.synchronize(device)
    return 2 * SIZE**3 * REPEATS / (time.perf_counter() - started) / 1e12


def main() -> int:
    """Print what there is; 1 when there is no GPU that torch can use."""
    import torch

    rank = os.environ.get("SLURM_PROCID", os.environ.get("RANK", "0"))
    print(
        f"process {rank} on {platform.node()}: Python {platform.python_version()}, torch "
        f"{torch.__version__}"
    )
    if not torch.cuda.is_available():
        built = torch.version.cuda or torch.version.hip
        why = (
            "torch sees no GPU (is the driver there? did the job ask for GPUs?)"
            if built
            else "this is a CPU build"
        )
        print(f"error: no GPU: {why}", file=sys.stderr)
        return 1
    nccl = (
        ".".join(map(str, torch.cuda.nccl.version()))
        if torch.distributed.is_nccl_available()
        else "not there"
    )
    print(f"CUDA {torch.version.cuda}, NCCL {nccl}, GPUs visible: {torch.cuda.device_count()}")
    for index in range(torch.cuda.device_count()):
        device = torch.device("cuda", index)
        free, total = torch.cuda.mem_get_info(device)
        about = (
            f"{torch.cuda.get_device_name(device)}, {free / 2**30:.1f} of "
            f"{total / 2**30:.1f} GiB free"
        )
        if free < 4 * 2**30:
            print(f"GPU {index}: {about}; in use by others? too little is free to test it")
            continue
        print(f"GPU {index}: {about}, {speed_tflops(torch, device):.0f} TFLOP/s in 16-bit products")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
