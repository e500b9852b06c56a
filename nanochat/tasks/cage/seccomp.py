"""The system-call filter of a cage, as a classic BPF program for seccomp.

A list of refusals rather than of permissions: namespaces, mounts, user and limits already hold the
program; the filter takes away what could loosen them (new namespaces, mounts, tracing), memory that
no limit counts (memfd, System V) and kernel entry points with a history of holes that no exercise
needs (bpf, io_uring, keys, userfaultfd).
"""

from __future__ import annotations

import errno
import platform
import struct

# System call numbers from the kernel's tables: name -> (x86_64, aarch64); None where the machine
# has no such call.
REFUSED: dict[str, tuple[int | None, int | None]] = {
    "ptrace": (101, 117),
    "process_vm_readv": (310, 270),
    "process_vm_writev": (311, 271),
    "kcmp": (312, 272),
    "pidfd_getfd": (438, 438),
    "unshare": (272, 97),
    "setns": (308, 268),
    "mount": (165, 40),
    "umount2": (166, 39),
    "pivot_root": (155, 41),
    "chroot": (161, 51),
    "open_tree": (428, 428),
    "move_mount": (429, 429),
    "fsopen": (430, 430),
    "fsconfig": (431, 431),
    "fsmount": (432, 432),
    "fspick": (433, 433),
    "mount_setattr": (442, 442),
    "memfd_create": (319, 279),
    "memfd_secret": (447, 447),
    "shmget": (29, 194),
    "shmat": (30, 196),
    "msgget": (68, 186),
    "semget": (64, 190),
    "mq_open": (240, 180),
    "bpf": (321, 280),
    "perf_event_open": (298, 241),
    "userfaultfd": (323, 282),
    "io_uring_setup": (425, 425),
    "io_uring_enter": (426, 426),
    "io_uring_register": (427, 427),
    "add_key": (248, 217),
    "request_key": (249, 218),
    "keyctl": (250, 219),
    "name_to_handle_at": (303, 264),
    "open_by_handle_at": (304, 265),
    "kexec_load": (246, 104),
    "kexec_file_load": (320, 294),
    "init_module": (175, 105),
    "finit_module": (313, 273),
    "delete_module": (176, 106),
    "acct": (163, 89),
    "swapon": (167, 224),
    "swapoff": (168, 225),
    "reboot": (169, 142),
    "syslog": (103, 116),
    "quotactl": (179, 60),
    "quotactl_fd": (443, 443),
    "fanotify_init": (300, 262),
    "mbind": (237, 235),
    "set_mempolicy": (238, 237),
    "migrate_pages": (256, 238),
    "move_pages": (279, 239),
    "iopl": (172, None),
    "ioperm": (173, None),
    "modify_ldt": (154, None),
    "settimeofday": (164, 170),
    "clock_settime": (227, 112),
    "clock_adjtime": (305, 266),
    "adjtimex": (159, 171),
    "sethostname": (170, 161),
    "setdomainname": (171, 162),
    "vhangup": (153, 58),
}
# machine -> (column in the table above, audit architecture, clone, clone3, socket, ioctl)
MACHINES = {
    "x86_64": (0, 0xC000003E, 56, 435, 41, 16),
    "aarch64": (1, 0xC00000B7, 220, 435, 198, 29),
}
NEW_NAMESPACES = 0x7E020000  # mount, cgroup, uts, ipc, user, pid, net
TERMINAL_INJECTION = (0x5412, 0x541C)  # TIOCSTI, TIOCLINUX
# unix, inet, inet6: all empty inside; others (vsock!) are not held by a network namespace
SOCKET_FAMILIES = (1, 2, 10)

# Instructions and answers of a filter.
LOAD = 0x20
EQUAL = 0x15
GREATER_OR_EQUAL = 0x35
ANY_BIT = 0x45
RETURN = 0x06
ALLOW = 0x7FFF0000
KILL = 0x80000000
ERRNO = 0x00050000
# Offsets in struct seccomp_data; low halves of the arguments.
NUMBER_AT = 0
ARCH_AT = 4
ARG0_AT = 16
ARG1_AT = 24


def _op(code: int, k: int, jump_true: int = 0, jump_false: int = 0) -> bytes:
    return struct.pack("<HBBI", code, jump_true, jump_false, k)


def _return(value: int) -> bytes:
    return _op(RETURN, value)


def _when(number: int, body: list[bytes]) -> list[bytes]:
    """Run `body`, which must return, when the loaded system call number equals `number`; else go on
    behind it.
    """
    return [_op(EQUAL, number, 0, len(body)), *body]


def _any_of(values: tuple[int, ...]) -> list[bytes]:
    """Skip the one instruction behind these when what is loaded is one of the values."""
    return [_op(EQUAL, value, len(values) - i) for i, value in enumerate(values)]


def supported(machine: str | None = None) -> bool:
    """Whether a filter is known for this machine type."""
    return (machine or platform.machine()) in MACHINES


def program(machine: str | None = None) -> bytes:
    """The filter for `machine` (default: this one) as bytes of `struct sock_filter`.

    Raises ValueError for a machine without a table.
    """
    machine = machine or platform.machine()
    if machine not in MACHINES:
        raise ValueError(f"machine {machine!r}: no system-call table; known: {', '.join(MACHINES)}")
    column, arch, clone, clone3, socket, ioctl = MACHINES[machine]
    refuse = _return(ERRNO | errno.EPERM)
    code = [_op(LOAD, ARCH_AT), _op(EQUAL, arch, 1, 0), _return(KILL), _op(LOAD, NUMBER_AT)]
    # The x32 calls are the same numbers with bit 30 set: an unlocked second door.
    if machine == "x86_64":
        code += [_op(GREATER_OR_EQUAL, 0x40000000, 0, 1), _return(KILL)]
    for numbers in REFUSED.values():
        number = numbers[column]
        if number is not None:
            code += _when(number, [refuse])
    # clone3 keeps its flags in memory where no filter can look: "not there" makes libc fall back to
    # clone.
    code += _when(clone3, [_return(ERRNO | errno.ENOSYS)])
    code += _when(
        clone, [_op(LOAD, ARG0_AT), _op(ANY_BIT, NEW_NAMESPACES, 0, 1), refuse, _return(ALLOW)]
    )
    unknown = _return(ERRNO | errno.EAFNOSUPPORT)
    code += _when(socket, [_op(LOAD, ARG0_AT), *_any_of(SOCKET_FAMILIES), unknown, _return(ALLOW)])
    inject = _any_of(TERMINAL_INJECTION)
    code += _when(ioctl, [_op(LOAD, ARG1_AT), *inject, _return(ALLOW), refuse])
    return b"".join([*code, _return(ALLOW)])
