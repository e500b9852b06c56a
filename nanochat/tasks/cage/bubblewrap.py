"""The first choice of cage: bubblewrap (`bwrap`), an audited program that builds a view of the
system from nothing.

As an ordinary user it makes a user namespace in which the program is nobody. As root that namespace
would leave the program with root's number outside, for which no process limit holds; so there
bubblewrap keeps two capabilities for the guard, which changes to a user number of its own and so
loses them.
"""

from __future__ import annotations

import os
import shutil
from pathlib import PurePosixPath

from nanochat.tasks.cage import seccomp
from nanochat.tasks.cage.limits import (
    DEVICES,
    GUARD,
    PROGRAM,
    CagePlan,
    Limits,
    guard_command,
    memory_file,
    per_namespace_process_limit,
    read_only_paths,
    unprivileged_id,
)

INSTALL = (
    "install bubblewrap (Debian, Ubuntu: apt-get install bubblewrap; Fedora: dnf install "
    "bubblewrap)"
)


def missing() -> str | None:
    """Why this cage cannot even be tried here, or None."""
    if shutil.which("bwrap") is None:
        return f"bwrap is not installed; {INSTALL}"
    if not seccomp.supported():
        return f"no system-call filter for machine type {os.uname().machine}"
    return None


def _parents(paths: list[str]) -> list[str]:
    """Folders above `paths`, outer ones first: left to itself bubblewrap makes them for its own
    user only.
    """
    found = {str(parent) for path in paths for parent in PurePosixPath(path).parents}
    return sorted(found - {"/"} - {path for path in paths if os.path.islink(path)})


def _view(limits: Limits, program_fd: int) -> list[str]:
    """The file system inside, as bubblewrap's options; later ones lie over earlier ones."""
    options = f"--perms 1777 --size {limits.disk_bytes} --tmpfs /tmp --proc /proc".split()
    # Process 1 inside is bubblewrap's own. Under an ordinary user it has the program's user but not
    # its filter and limits: through /proc/1/mem a program could live on in it. Seen open with
    # 0.8.0, so its folder is covered.
    options += "--perms 0555 --size 4096 --tmpfs /proc/1 --remount-ro /proc/1".split()
    shown = read_only_paths(limits.shows)
    for folder in _parents([*shown, *DEVICES, PROGRAM]):
        options += ["--perms", "0755", "--dir", folder]
    for device in DEVICES:
        options += ["--dev-bind", device, device]
    for path in shown:
        if os.path.islink(path):
            options += ["--symlink", os.readlink(path), path]
        else:
            options += ["--ro-bind", path, path]
    options += ["--ro-bind", str(GUARD), "/cage/guard.py"]
    options += ["--perms", "0444", "--ro-bind-data", str(program_fd), PROGRAM]
    # Everything but /tmp is now closed to writing, the memory-backed root itself included.
    return [*options, "--remount-ro", "/", "--chdir", "/tmp"]


def plan(program: bytes, limits: Limits, status_fd: int) -> CagePlan:
    """The command that runs `program` in this cage."""
    uid = unprivileged_id()
    program_fd = memory_file("program", program)
    filter_fd = memory_file("filter", seccomp.program())
    user = "--unshare-user --uid 65534 --gid 65534"
    if uid is not None:
        user = "--cap-drop ALL --cap-add CAP_SETUID --cap-add CAP_SETGID"
    argv = [
        shutil.which("bwrap") or "bwrap",
        *"--unshare-pid --unshare-net --unshare-ipc --unshare-uts --unshare-cgroup-try".split(),
        *"--hostname cage --die-with-parent --new-session".split(),
        *user.split(),
        *_view(limits, program_fd),
        *("--seccomp", str(filter_fd), "--"),
        *guard_command(
            "/cage/guard.py", PROGRAM, limits, uid, status_fd, per_namespace_process_limit()
        ),
    ]
    return CagePlan(argv, fds=[program_fd, filter_fd], keepers=2)
