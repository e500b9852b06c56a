"""Compute type: the override wins, bad overrides are explained, CPU follows what the processor can
do.
"""

from __future__ import annotations

import pytest
import torch

from nanochat.runtime import precision


def test_override_wins(monkeypatch):
    monkeypatch.setenv("NANOCHAT_DTYPE", "float16")
    assert precision.pick_dtype("cpu") is torch.float16
    monkeypatch.setenv("NANOCHAT_DTYPE", "fp8")
    with pytest.raises(
        ValueError, match="NANOCHAT_DTYPE=fp8: unknown type; use one of float32, bfloat16, float16"
    ):
        precision.pick_dtype("cpu")


def test_cpu_follows_the_processor(monkeypatch):
    for native, dtype in ((True, torch.bfloat16), (False, torch.float32)):
        monkeypatch.setattr(precision, "cpu_has_native_bfloat16", lambda native=native: native)
        assert precision.pick_dtype(torch.device("cpu")) is dtype
    assert precision.pick_dtype("mps") is torch.float32


def test_cuda_capability(monkeypatch):
    for capability, dtype in (
        ((9, 0), torch.bfloat16),
        ((8, 0), torch.bfloat16),
        ((7, 5), torch.float16),
    ):
        monkeypatch.setattr(torch.cuda, "get_device_capability", lambda device, c=capability: c)
        assert precision.pick_dtype("cuda") is dtype


def test_cpuinfo(tmp_path):
    file = tmp_path / "cpuinfo"
    assert not precision.cpu_has_native_bfloat16(file)
    for flags, native in (
        ("fpu amx_bf16", True),
        ("avx512_bf16 fma", True),
        ("avx2 fma avx512f", False),
    ):
        file.write_text(f"processor: 0\nflags\t\t: {flags}\n")
        assert precision.cpu_has_native_bfloat16(file) is native
