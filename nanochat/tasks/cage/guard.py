"""Runs inside a cage as a script, before the program: sets limits, gives up the user, becomes the
program.

Arguments: uid processes cpu_s memory_bytes file_bytes status_fd -- command... (uid -1 and processes
0: leave as is). Only the standard library without `site`; two interpreter starts cost about 15 ms
together, less than any trick that would set the limits in the parent's child after a fork of a
process that holds a model.
"""

from __future__ import annotations

import os
import resource
import sys


def set_limit(name: str, value: int) -> None:
    """Set one limit, never above what is there. On Linux all must hold; a bare run elsewhere takes
    what it can get.
    """
    try:
        which = getattr(resource, name)
        hard = resource.getrlimit(which)[1]
        value = value if hard == resource.RLIM_INFINITY else min(value, hard)
        resource.setrlimit(which, (value, value))
    except (AttributeError, ValueError):
        if sys.platform == "linux":
            raise


def main(argv: list[str]) -> None:
    """Apply the limits in `argv` and replace this process by the command after `--`."""
    split = argv.index("--")
    uid, processes, cpu_s, memory, file_bytes, status_fd = map(int, argv[:split])
    command = argv[split + 1 :]
    if uid >= 0:
        os.setgroups([])
        os.setresgid(uid, uid, uid)
        os.setresuid(uid, uid, uid)
    limits = {
        "RLIMIT_CORE": 0,
        "RLIMIT_CPU": cpu_s,
        "RLIMIT_AS": memory,
        "RLIMIT_FSIZE": file_bytes,
        "RLIMIT_NOFILE": 64,
        "RLIMIT_MEMLOCK": 0,
        "RLIMIT_MSGQUEUE": 0,
    }
    if processes > 0:
        limits["RLIMIT_NPROC"] = processes
    for name, value in limits.items():
        set_limit(name, value)
    # The parent takes this byte as word that every wall stands; without it the run is refused, not
    # scored.
    os.write(status_fd, b"1")
    os.closerange(3, status_fd + 256)
    os.execve(command[0], command, dict(os.environ))


if __name__ == "__main__":
    main(sys.argv[1:])
