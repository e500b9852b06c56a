"""Runs as a script in a process of its own: enters fresh namespaces, builds the file system, starts
the guard.

Arguments: descriptors of the job (JSON, see namespaces.plan) and of the system-call filter. Only
the standard library. Any step that fails ends the process before the guard has said that it stands,
and the caller refuses to run.
"""

from __future__ import annotations

import ctypes
import json
import os
import signal
import socket
import struct
import sys

# The kernel's numbers, from its headers.
NEW_NAMESPACES = 0x6E020000  # mount, cgroup, uts, ipc, pid, net
NEW_USER = 0x10000000
MS_RDONLY = 1
MS_NOSUID = 2
MS_NODEV = 4
MS_NOEXEC = 8
MS_REMOUNT = 32
MS_BIND = 1 << 12
MS_REC = 1 << 14
MS_PRIVATE = 1 << 18
MNT_DETACH = 2
SYS_MOUNT_SETATTR = 442
AT_RECURSIVE = 0x8000
MOUNT_ATTR_LOCKED_DOWN = 1 | 2 | 4  # read-only, nosuid, nodev
PR_SET_PDEATHSIG = 1
PR_SET_DUMPABLE = 4
PR_SET_SECCOMP = 22
PR_CAPBSET_DROP = 24
PR_SET_NO_NEW_PRIVS = 38
CAP_SETGID = 6
CAP_SETUID = 7
SYS_PIVOT_ROOT = {"x86_64": 155, "aarch64": 41}


class Kernel:
    """The C library's calls that Python has no name for; each raises OSError with what was being
    done.
    """

    def __init__(self) -> None:
        self.libc = ctypes.CDLL(None, use_errno=True)

    def check(self, result: int, doing: str) -> None:
        if result != 0:
            code = ctypes.get_errno()
            raise OSError(code, f"{doing}: {os.strerror(code)}")

    def mount(
        self, source: str, target: str, kind: str | None, flags: int, data: str | None = None
    ) -> None:
        text = [None if s is None else s.encode() for s in (source, target, kind, data)]
        result = self.libc.mount(text[0], text[1], text[2], ctypes.c_ulong(flags), text[3])
        self.check(result, f"mount {kind or 'bind'} {target}")

    def prctl(self, option: int, value: int, pointer: object = 0) -> None:
        self.check(self.libc.prctl(option, ctypes.c_ulong(value), pointer, 0, 0), f"prctl {option}")

    def syscall(self, doing: str, number: int, *args: object) -> None:
        self.check(self.libc.syscall(ctypes.c_long(number), *args), doing)


def read(source: str | int) -> bytes:
    with open(source, "rb") as file:
        return file.read()


def enter_namespaces(kernel: Kernel, as_root: bool) -> None:
    """Unshare everything; an ordinary user becomes nobody in a user namespace of its own."""
    uid, gid = os.getuid(), os.getgid()
    flags = NEW_NAMESPACES if as_root else NEW_NAMESPACES | NEW_USER
    kernel.check(kernel.libc.unshare(flags), "unshare")
    if not as_root:
        for name, text in (
            ("setgroups", "deny"),
            ("uid_map", f"65534 {uid} 1"),
            ("gid_map", f"65534 {gid} 1"),
        ):
            with open(f"/proc/self/{name}", "w") as file:
                file.write(text)
    socket.sethostname("cage")


def bind_read_only(kernel: Kernel, source: str, target: str) -> None:
    """Show a host file or folder, with all mounts below it, read-only at `target`."""
    if os.path.islink(source):
        os.symlink(os.readlink(source), target)
        return
    os.makedirs(os.path.dirname(target), mode=0o755, exist_ok=True)
    if os.path.isdir(source):
        os.makedirs(target, exist_ok=True)
    else:
        os.close(os.open(target, os.O_CREAT | os.O_WRONLY, 0o444))
    kernel.mount(source, target, None, MS_BIND | MS_REC)
    if source.startswith("/dev/"):  # a device on a nodev mount could not be opened
        return
    attributes = struct.pack("<QQQQ", MOUNT_ATTR_LOCKED_DOWN, 0, 0, 0)
    at = (ctypes.c_int(-100), target.encode(), ctypes.c_uint(AT_RECURSIVE))
    kernel.syscall(
        f"lock {target}", SYS_MOUNT_SETATTR, *at, attributes, ctypes.c_size_t(len(attributes))
    )


def build_root(kernel: Kernel, job: dict) -> None:
    """Make the new root in memory, move into it and let go of the old one."""
    files = {target: read(source) for source, target in job["files"].items()}  # still in sight
    new = job["root"]
    kernel.mount("none", "/", None, MS_REC | MS_PRIVATE)
    kernel.mount("tmpfs", new, "tmpfs", MS_NOSUID | MS_NODEV, "size=4m,mode=755")
    for path in job["read_only"]:
        bind_read_only(kernel, path, new + path)
    os.makedirs(new + "/cage", mode=0o755)
    for target, content in files.items():
        with open(new + target, "wb") as file:
            file.write(content)
        os.chmod(new + target, 0o444)
    for name in ("/tmp", "/proc"):
        os.makedirs(new + name, exist_ok=True)
    size = f"size={job['disk_bytes']},nr_inodes={job['disk_files']},mode=1777"
    kernel.mount("tmpfs", new + "/tmp", "tmpfs", MS_NOSUID | MS_NODEV, size)
    kernel.mount("proc", new + "/proc", "proc", MS_NOSUID | MS_NODEV | MS_NOEXEC)
    os.chdir(new)
    kernel.syscall("pivot_root", SYS_PIVOT_ROOT[os.uname().machine], b".", b".")
    kernel.check(kernel.libc.umount2(b".", MNT_DETACH), "let go of the old root")
    kernel.mount("none", "/", None, MS_REMOUNT | MS_BIND | MS_RDONLY | MS_NOSUID | MS_NODEV)
    os.chdir("/tmp")


def lock_down(kernel: Kernel, rules: bytes, as_root: bool) -> None:
    """Give up every capability the guard does not need, and every privilege a program file could
    bring.
    """
    if as_root:
        with open("/proc/sys/kernel/cap_last_cap") as file:
            last = int(file.read())
        for capability in range(last + 1):
            if capability not in (CAP_SETGID, CAP_SETUID):
                kernel.prctl(PR_CAPBSET_DROP, capability)
    kernel.prctl(PR_SET_NO_NEW_PRIVS, 1)
    buffer = ctypes.create_string_buffer(rules, len(rules))
    program = struct.pack("@HP", len(rules) // 8, ctypes.addressof(buffer))
    kernel.prctl(PR_SET_SECCOMP, 2, ctypes.c_char_p(program))
    # Closes /proc/1/mem of the keeper inside; the program gets its own back by exec.
    kernel.prctl(PR_SET_DUMPABLE, 0)


def status_of(pid: int) -> int:
    """Wait for `pid`, burying others on the way; its exit status the way a shell shows it."""
    while True:
        ended, status = os.wait()
        if ended == pid:
            return os.WEXITSTATUS(status) if os.WIFEXITED(status) else 128 + os.WTERMSIG(status)


def keep(kernel: Kernel, pid: int, status_fd: int) -> int:
    """Be the parent of `pid`: hold nothing open that it could be waited on by, and pass its status
    on.
    """
    os.close(status_fd)
    return status_of(pid)


def main(job_fd: int, filter_fd: int) -> int:
    """Build the cage and run the guard in it as its second process; the first one buries the
    dead."""
    kernel = Kernel()
    kernel.prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
    job, rules = json.loads(read(job_fd)), read(filter_fd)
    as_root = os.geteuid() == 0
    enter_namespaces(kernel, as_root)
    first = os.fork()
    if first:
        return keep(kernel, first, job["status_fd"])
    kernel.prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
    # The first process of a namespace ignores what it does not handle.
    signal.signal(signal.SIGINT, signal.SIG_DFL)
    build_root(kernel, job)
    lock_down(kernel, rules, as_root)
    second = os.fork()
    if second:
        return keep(kernel, second, job["status_fd"])
    command = job["command"]
    os.execve(command[0], command, dict(os.environ))


if __name__ == "__main__":
    sys.exit(main(int(sys.argv[1]), int(sys.argv[2])))
