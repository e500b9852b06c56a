"""Folders: can they be written, is there room, does a quota say otherwise, do file locks work."""

from __future__ import annotations

import os
import re
import shutil
import tempfile
from pathlib import Path

from nanochat.launch.doctor.finding import Finding, error, ok, warning
from nanochat.runtime.base_dir import expanded, nearest_existing
from nanochat.runtime.errors import HINTS
from nanochat.runtime.programs import output_of

PROBE_BYTES = 2**20  # quotas and full disks refuse it; a file of no bytes they may let pass
FEW_FILES = 10_000
LITTLE_HOME_BYTES = 2**30
CACHES = "export XDG_CACHE_HOME, TRITON_CACHE_DIR and WANDB_DIR to folders on a larger disk"


def base_folder(wanted_bytes: float) -> Finding:
    """The base directory: a real write, the room that the run's checkpoints and downloads need."""
    named = os.environ.get("NANOCHAT_BASE_DIR")
    try:
        folder = expanded(named or "~/.cache/nanochat")
    except ValueError as wrong:
        return error("base directory", str(wrong))
    if problem := write_problem(folder):
        return error("base directory", f"{folder}: {problem}")
    usage = shutil.disk_usage(nearest_existing(folder))
    found = f"{folder}, {usage.free / 1e9:.0f} of {usage.total / 1e9:.0f} GB free"
    if usage.free < wanted_bytes:
        fix = "make room, or name another disk with NANOCHAT_BASE_DIR"
        return error("base directory", f"{found}, about {wanted_bytes / 1e9:.0f} GB needed", fix)
    files = os.statvfs(nearest_existing(folder)).f_favail
    if 0 < files < FEW_FILES:  # 0 where the file system has no such limit
        return warning("base directory", f"{found}, but only {files:,} more files may be made")
    if named is None and wanted_bytes > LITTLE_HOME_BYTES:
        fix = "on a cluster name a folder on scratch: base_dir= in cluster.env"
        return warning("base directory", f"{found}; NANOCHAT_BASE_DIR is not set", fix)
    return ok("base directory", found)


def home_folder() -> Finding:
    """HOME, where compilers and W&B keep files: a full one ends runs that never meant to use it."""
    home = os.environ.get("HOME", "")
    if not home or not Path(home).is_dir():
        return warning("HOME", f"{home or 'not set'}: no such folder", CACHES)
    if problem := write_problem(Path(home)):
        return error("HOME", f"{home}: {problem}", CACHES)
    free = shutil.disk_usage(home).free
    found = f"{home}, {free / 1e9:.1f} GB free"
    return warning("HOME", found, CACHES) if free < LITTLE_HOME_BYTES else ok("HOME", found)


def write_problem(folder: Path) -> str:
    """Why a MiB cannot be written to `folder`, or to what will hold it; "" where it can."""
    place = nearest_existing(folder)
    try:
        with tempfile.TemporaryFile(dir=place) as file:
            file.write(bytes(PROBE_BYTES))
            file.flush()
            os.fsync(file.fileno())  # network disks tell of quotas only here
    except OSError as problem:
        return HINTS.get(problem.errno or 0, problem.strerror or str(problem))
    return ""


def quotas(folder: Path, wanted_bytes: float) -> list[Finding]:
    """What `quota` and Lustre's `lfs quota` say; nothing where neither is there. A limit may count
    for one disk of several, so what does not fit is only said.
    """
    found = []
    text = output_of("quota", "-w", "-p") or ""
    for disk, used, limit in quota_rows(text):
        found.append(_quota(disk, used, limit, 0.0))
    place = str(nearest_existing(folder))
    text = output_of("lfs", "quota", "-q", "-u", str(os.getuid()), place) or ""
    for _, used, limit in quota_rows(text):
        found.append(_quota(place, used, limit, wanted_bytes))
    return found


def quota_rows(text: str) -> list[tuple[str, float, float]]:
    """(disk, used bytes, limit in bytes) of every line `disk blocks soft hard ...` that has a
    limit; blocks are KiB, with a star where a limit is exceeded.
    """
    rows = []
    for line in text.splitlines():
        match = re.match(r"\s*(\S+)\s+(\d+)\*?\s+(\d+)\s+(\d+)\b", line)
        if match and int(match[3] or 0) | int(match[4]):
            limits = [int(number) for number in (match[3], match[4]) if int(number)]
            rows.append((match[1], int(match[2]) * 1024.0, min(limits) * 1024.0))
    return rows


def _quota(disk: str, used: float, limit: float, wanted_bytes: float) -> Finding:
    found = f"{disk}: {used / 1e9:.1f} of {limit / 1e9:.1f} GB used"
    if used >= limit:
        return error("quota", f"{found}, exceeded", "delete files there, or ask for more")
    if used + wanted_bytes > limit:
        fix = "make room, or name another disk with NANOCHAT_BASE_DIR"
        return error("quota", f"{found}, about {wanted_bytes / 1e9:.0f} GB more needed", fix)
    return ok("quota", found)


def file_locks(folder: Path) -> Finding:
    """Whether two processes can keep each other out of a folder: ranks that download need it."""
    place = nearest_existing(folder)
    fix = "mount it with locks (Lustre: -o flock), or start one process at a time"
    try:
        import fcntl
    except ImportError:
        return warning("file locks", "this system has none", "start one process at a time")
    try:
        with tempfile.NamedTemporaryFile(dir=place, prefix=".nanochat-lock-") as first:
            fcntl.flock(first, fcntl.LOCK_EX | fcntl.LOCK_NB)
            with open(first.name) as second:
                try:
                    fcntl.flock(second, fcntl.LOCK_EX | fcntl.LOCK_NB)
                except BlockingIOError:
                    return ok("file locks", f"work in {place}")
    except OSError as problem:
        return warning("file locks", f"{place}: {problem.strerror}", fix)
    return warning("file locks", f"{place}: two can hold one lock", fix)
