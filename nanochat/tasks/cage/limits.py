"""What every cage has in common: the limits, the files the program may see, and the command that
starts it.

Inside a cage there are only the interpreter, its standard library, the shared libraries it needs,
four harmless devices, a small private /tmp and the program itself; the environment is built from
nothing.
"""

from __future__ import annotations

import os
import platform
import re
import secrets
import sys
from dataclasses import dataclass, field
from pathlib import Path

MIB = 1024 * 1024
GUARD = Path(__file__).with_name("guard.py")
PROGRAM = "/cage/main.py"
DEVICES = ("/dev/null", "/dev/zero", "/dev/random", "/dev/urandom")
LIBRARY_DIRS = ("/lib", "/lib64", "/usr/lib", "/usr/lib64", "/usr/local/lib", "/nix/store")
# A fixed hash seed: the same program prints the same set order every time, so an evaluation can be
# repeated.
ENVIRONMENT = {
    "PATH": "/usr/bin:/bin",
    "HOME": "/tmp",
    "LANG": "C.UTF-8",
    "PYTHONHASHSEED": "0",
    "PYTHONSAFEPATH": "1",
    "PYTHONIOENCODING": "utf-8:backslashreplace",
}
# As root every cage gets a user number of its own, so that one cage's processes do not use up
# another's allowance. The range lies below 65,536, all that a container with mapped users may have.
FIRST_UID, UID_COUNT = 61_184, 4_000


# Below these there is no run: an interpreter alone needs 32 MiB.
LEAST = {
    "memory_bytes": 32 * MIB,
    "output_bytes": 1,
    "disk_bytes": 4096,
    "files": 16,
    "processes": 1,
}


@dataclass(frozen=True)
class Limits:
    """What a program may use. Bytes and seconds; `processes` counts threads too. shows: files and
    folders of this machine that it may read besides, each at its own place.
    """

    timeout_s: float = 5.0
    memory_bytes: int = 512 * MIB
    output_bytes: int = MIB
    disk_bytes: int = 16 * MIB
    files: int = 2_000
    processes: int = 32
    shows: tuple[str, ...] = ()

    def problems(self) -> list[str]:
        """One line for each limit that cannot be applied."""
        found = []
        if not 0 < self.timeout_s <= 3600:
            found.append(
                f"timeout_s={self.timeout_s}: give a number of seconds above 0 and up to 3600"
            )
        for name, least in LEAST.items():
            if getattr(self, name) < least:
                found.append(f"{name}={getattr(self, name)}: give at least {least}")
        return found


@dataclass
class CagePlan:
    """A command that runs one program in one kind of cage, and what must be closed afterwards."""

    argv: list[str]
    fds: list[int] = field(default_factory=list)
    keepers: int = 0  # processes of the cage itself, not counted as the program's
    folder: Path | None = None  # a temporary folder to delete at the end


def interpreter() -> str:
    """The real file of the running interpreter, behind any virtual environment."""
    return os.path.realpath(getattr(sys, "_base_executable", None) or sys.executable)


def read_only_paths(also: tuple[str, ...] = ()) -> list[str]:
    """Host files and folders shown read-only, each at its own place: libraries, the interpreter,
    its library, and what a program is given `also`.
    """
    own = (os.path.join(sys.base_prefix, "lib"), interpreter())
    wanted = (*LIBRARY_DIRS, "/etc/ld.so.cache", *own, *also)
    shown: list[str] = []
    for path in wanted:
        inside = any(path.startswith(other + "/") for other in shown if not os.path.islink(other))
        if os.path.exists(path) and path not in shown and not inside:
            shown.append(path)
    return shown


def unprivileged_id() -> int | None:
    """The user and group number to become inside (root only); None for ordinary users, who are
    mapped to nobody.
    """
    return FIRST_UID + secrets.randbelow(UID_COUNT) if os.geteuid() == 0 else None


def per_namespace_process_limit() -> bool:
    """Whether RLIMIT_NPROC counts the cage's processes alone: Linux 5.14, or root, who gives each
    cage its own user.

    Elsewhere the limit would count everything the user runs, so only the watcher counts there.
    """
    version = [int(number) for number in re.findall(r"\d+", platform.release())[:2]]
    return os.geteuid() == 0 or version >= [5, 14]


def guard_command(
    guard: str, program: str, limits: Limits, uid: int | None, status_fd: int, nproc: bool
) -> list[str]:
    """The command that runs inside: the guard applies the limits, drops the user and becomes the
    program.
    """
    numbers = [
        -1 if uid is None else uid,
        limits.processes + 2 if nproc else 0,  # two of the cage's own may be in its namespace too
        int(limits.timeout_s) + 2,  # s of CPU: the wall clock ends a program first
        limits.memory_bytes,
        limits.disk_bytes,
        status_fd,
    ]
    python = [interpreter(), "-s", "-S", "-B"]
    return [*python, guard, *map(str, numbers), "--", *python, program]


def memory_file(name: str, content: bytes) -> int:
    """A descriptor from which `content` can be read once, without a file on disk."""
    fd = os.memfd_create(name)
    os.write(fd, content)
    os.lseek(fd, 0, os.SEEK_SET)
    return fd
