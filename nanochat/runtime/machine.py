"""What made a result: the version of the code, the libraries, the processor, memory and GPUs."""

from __future__ import annotations

import os
import platform
import subprocess
import sys
from importlib import metadata
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[2]  # the checkout, when there is one


def _git(*args: str) -> str | None:
    """Output of a git command about this checkout; None outside one or without git."""
    if not (ROOT / ".git").exists():
        return None
    try:
        done = subprocess.run(
            ["git", "-C", str(ROOT), *args], capture_output=True, text=True, timeout=10, check=True
        )
    except (OSError, subprocess.SubprocessError):
        return None
    return done.stdout.strip()


def package_version() -> str:
    try:
        return metadata.version("nanochat")
    except metadata.PackageNotFoundError:
        return "unknown"


def code_version() -> str:
    """`git describe` of the checkout (`-dirty` when changed), else the package version."""
    return _git("describe", "--always", "--dirty", "--tags") or package_version()


def environment() -> dict[str, Any]:
    """What a report says about the machine and the code: versions, processor, memory (bytes), GPUs,
    git state.
    """
    import torch

    dirty = _git("status", "--porcelain")
    return {
        "platform": platform.platform(),
        "hostname": platform.node(),
        "python": sys.version.split()[0],
        "torch": torch.__version__,
        "nanochat": package_version(),
        "git_commit": _git("rev-parse", "HEAD"),
        "git_branch": _git("rev-parse", "--abbrev-ref", "HEAD"),
        "git_dirty": None if dirty is None else bool(dirty),
        "cpu": cpu_model(),
        "cores": core_count(),
        "memory_bytes": memory_bytes(),
        "cuda": torch.version.cuda,
        "gpus": [torch.cuda.get_device_name(i) for i in range(torch.cuda.device_count())],
        "gpu_memory_bytes": [
            torch.cuda.get_device_properties(i).total_memory
            for i in range(torch.cuda.device_count())
        ],
    }


def cpu_model() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
        return next(
            line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")
        )
    except (OSError, StopIteration):
        return platform.processor() or platform.machine()


def core_count() -> int:
    """Cores this process may use (its affinity mask, where the system has one)."""
    affinity = getattr(os, "sched_getaffinity", None)
    return len(affinity(0)) if affinity else os.cpu_count() or 1


def memory_bytes() -> int | None:
    """Physical memory of the machine, or the container's limit when that is lower."""
    try:
        total = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    except (ValueError, OSError, AttributeError):
        return None
    try:
        limit = Path("/sys/fs/cgroup/memory.max").read_text().strip()
        return min(total, int(limit)) if limit != "max" else total
    except (OSError, ValueError):
        return total
