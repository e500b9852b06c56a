"""The second choice of cage, where bubblewrap is missing: the same namespaces, made by a small
script of our own.

`launcher.py` does the work in a process of its own, so that nothing of it touches the caller: it
must fork after entering the namespaces, which a process with threads and a loaded model should not
do.
"""

from __future__ import annotations

import json
import os
import platform
import sys
import tempfile
from pathlib import Path

from nanochat.tasks.cage import seccomp
from nanochat.tasks.cage.limits import (
    DEVICES,
    GUARD,
    PROGRAM,
    CagePlan,
    Limits,
    guard_command,
    interpreter,
    memory_file,
    per_namespace_process_limit,
    read_only_paths,
    unprivileged_id,
)

LAUNCHER = Path(__file__).with_name("launcher.py")


def missing() -> str | None:
    """Why this cage cannot even be tried here, or None."""
    if sys.platform != "linux":
        return f"{platform.system()} has no Linux namespaces"
    if not seccomp.supported():
        return f"no system-call filter for machine type {os.uname().machine}"
    return None


def plan(program: bytes, limits: Limits, status_fd: int) -> CagePlan:
    """The command that runs `program` in this cage; the caller deletes `folder` afterwards."""
    uid = unprivileged_id()
    folder = Path(tempfile.mkdtemp(prefix="nanochat-cage-"))
    code = folder / "main.py"
    code.write_bytes(program)
    code.chmod(0o444)
    guard = guard_command(
        "/cage/guard.py", PROGRAM, limits, uid, status_fd, per_namespace_process_limit()
    )
    job = {
        "root": str(folder),
        "read_only": [*read_only_paths(limits.shows), *DEVICES],
        "files": {str(GUARD): "/cage/guard.py", str(code): PROGRAM},
        "disk_bytes": limits.disk_bytes,
        "disk_files": limits.files,
        "status_fd": status_fd,
        "command": guard,
    }
    job_fd = memory_file("job", json.dumps(job).encode())
    filter_fd = memory_file("filter", seccomp.program())
    argv = [interpreter(), "-I", "-S", "-B", str(LAUNCHER), str(job_fd), str(filter_fd)]
    return CagePlan(argv, fds=[job_fd, filter_fd], keepers=2, folder=folder)
