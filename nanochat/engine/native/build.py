"""Compiles the C source beside this file for the processor at hand, once, and loads it.

Needs only a C compiler (`cc`, `gcc`, `clang` or `$CC`); without one, or where it fails, the engine uses gpt.py alone.
`NANOCHAT_NATIVE=0` does without; any value but 1 is the folder to keep the library in, not `<base>/native`.
"""

from __future__ import annotations

import ctypes
import functools
import hashlib
import os
import platform
import shlex
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

from nanochat.runtime.run_dir import base_dir

SOURCES = ("decode.c", "attention.h", "input.h", "matmul.h", "model.h", "team.h", "tiles.h", "vectors.h")
FLAGS = ("-O3", "-fno-math-errno", "-fno-trapping-math", "-Wno-psabi", "-shared", "-fPIC", "-pthread")
COMPILE_LIMIT_S = 120


@functools.lru_cache(maxsize=1)
def library() -> ctypes.CDLL | None:
    """The compiled library, from `<base>/native/` when an earlier process made it; None where it cannot be had."""
    if os.environ.get("NANOCHAT_NATIVE") == "0" or sys.byteorder != "little":
        return None
    compiler = find_compiler()
    if compiler is None:
        return None
    try:
        path = compiled(compiler)
        return ctypes.CDLL(str(path)) if path else None
    except OSError:
        return None


def find_compiler() -> list[str] | None:
    """The command that compiles C, or None."""
    if os.environ.get("CC"):
        return shlex.split(os.environ["CC"])
    found = next((name for name in ("gcc", "clang", "cc") if shutil.which(name)), None)
    return [found] if found else None


def compiled(compiler: list[str]) -> Path | None:
    """The shared library for this source, compiler and processor: a home directory may serve many machines."""
    folder = Path(__file__).parent
    source = b"".join((folder / name).read_bytes() for name in SOURCES)
    facts = "\n".join([*compiler, *FLAGS, platform.machine(), sys.platform, processor_features()])
    name = hashlib.sha256(source + facts.encode()).hexdigest()[:24]
    setting = os.environ.get("NANOCHAT_NATIVE", "1")
    path = (base_dir() / "native" if setting in ("", "1") else Path(setting)) / f"decode-{name}.so"
    if not path.exists():
        path.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=path.parent) as scratch:
            built = Path(scratch) / path.name
            for extra in (["-march=native"], ["-mcpu=native"], []):
                if run_compiler([*compiler, *FLAGS, *extra, "-o", str(built), str(folder / SOURCES[0]), "-lm"]):
                    os.replace(built, path)
                    break
            else:
                return None
    return path


def run_compiler(command: list[str]) -> bool:
    try:
        return subprocess.run(command, capture_output=True, timeout=COMPILE_LIMIT_S, check=False).returncode == 0
    except (OSError, subprocess.TimeoutExpired):
        return False


def processor_features() -> str:
    """What the processor can do, as the system tells it: code made for more than that would not run."""
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return platform.processor()
    return next((line for line in lines if line.startswith(("flags", "Features"))), platform.processor())
