"""Which floating point type to compute in on this device."""

from __future__ import annotations

from pathlib import Path

import torch

from nanochat.runtime.variables import DTYPES, read_variable

NAMES = {name: getattr(torch, name) for name in DTYPES}


def pick_dtype(device: torch.device | str) -> torch.dtype:
    """The compute type for `device`; `NANOCHAT_DTYPE` wins over the automatic choice.

    CUDA: bfloat16 from compute capability 8.0 on, float16 before. CPU: bfloat16 only where matrix
    products in it are native (AMX or AVX512-BF16: about four times float32 there, slower than
    float32 without). MPS: float32. Raises ValueError for an unknown `NANOCHAT_DTYPE`.
    """
    if wanted := read_variable("NANOCHAT_DTYPE"):
        return NAMES[wanted]
    device = torch.device(device)
    if device.type == "cuda":
        major, _ = torch.cuda.get_device_capability(device)
        return torch.bfloat16 if major >= 8 else torch.float16
    if device.type == "cpu" and cpu_has_native_bfloat16():
        return torch.bfloat16
    return torch.float32


def cpu_has_native_bfloat16(cpuinfo: Path = Path("/proc/cpuinfo")) -> bool:
    """True when this processor multiplies bfloat16 matrices in hardware."""
    try:
        flags = next(line for line in cpuinfo.read_text().splitlines() if line.startswith("flags"))
    except (OSError, StopIteration):  # not Linux, or not x86
        return False
    return bool({"amx_bf16", "avx512_bf16"} & set(flags.split()))
