"""Compiles the C source beside this file for the processor at hand, once, and loads it.

Needs only a C compiler (`cc`, `gcc`, `clang` or `$CC`); without one, or where it fails, the engine
uses gpt.py alone. The library is kept in `~/.cache/nanochat/native`, not in `$NANOCHAT_BASE_DIR`:
it belongs to the machine and its user rather than to a run, and a base directory that somebody else
made must not bring code along. `NANOCHAT_NATIVE=0` does without; any value but 1 is the folder to
keep it in.
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

from nanochat.runtime.base_dir import expanded

SOURCES = (
    "decode.c",
    "attention.h",
    "input.h",
    "matmul.h",
    "model.h",
    "panels.h",
    "team.h",
    "tiles.h",
    "vectors.h",
)
FLAGS = (
    "-O3",
    "-fno-math-errno",
    "-fno-trapping-math",
    "-Wno-psabi",
    "-shared",
    "-fPIC",
    "-pthread",
)
COMPILE_LIMIT_S = 120


@functools.lru_cache(maxsize=1)
def library() -> ctypes.CDLL | None:
    """The compiled library, an earlier process's where there is one; None where it cannot be
    had."""
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
    """The shared library for this source, compiler and processor: a home directory may serve many
    machines.
    """
    folder = Path(__file__).parent
    source = b"".join((folder / name).read_bytes() for name in SOURCES)
    facts = "\n".join([*compiler, *FLAGS, platform.machine(), sys.platform, processor_features()])
    name = hashlib.sha256(source + facts.encode()).hexdigest()[:24]
    path = private_folder() / f"decode-{name}.so"
    if not path.exists():
        with tempfile.TemporaryDirectory(dir=path.parent) as scratch:
            built = Path(scratch) / path.name
            for extra in (["-march=native"], ["-mcpu=native"], []):
                if run_compiler(
                    [*compiler, *FLAGS, *extra, "-o", str(built), str(folder / SOURCES[0]), "-lm"]
                ):
                    os.replace(built, path)
                    break
            else:
                return None
    return path


def private_folder() -> Path:
    """Where libraries are kept: a folder that nobody else can write to. OSError when there is
    none."""
    named = os.environ.get("NANOCHAT_NATIVE", "1")
    try:
        path = expanded("~/.cache/nanochat/native" if named in ("", "1") else named)
        path.mkdir(mode=0o700, parents=True, exist_ok=True)
        if hasattr(os, "getuid"):
            facts = path.stat()
            if facts.st_uid != os.getuid() or facts.st_mode & 0o022:
                raise PermissionError(f"{path} can be written by others")
        if os.access(path, os.W_OK):
            return path
    except (OSError, ValueError):  # no home, a read-only one, somebody else's folder
        pass
    return Path(tempfile.mkdtemp(prefix="nanochat-native-"))


def run_compiler(command: list[str]) -> bool:
    try:
        return (
            subprocess.run(
                command, capture_output=True, timeout=COMPILE_LIMIT_S, check=False
            ).returncode
            == 0
        )
    except (OSError, subprocess.TimeoutExpired):
        return False


def processor_features() -> str:
    """What the processor can do, as the system tells it: code made for more than that would not
    run.
    """
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return platform.processor()
    return next(
        (line for line in lines if line.startswith(("flags", "Features"))), platform.processor()
    )
