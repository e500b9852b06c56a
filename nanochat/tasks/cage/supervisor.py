"""Watches a program in its cage: collects its output, its clock, its memory, its processes, and
ends it at a limit.

The kernel limits each process; what all processes of one program use together is counted here, some
forty times a second, by walking the family tree under the cage (a program cannot leave it: the
cage's first process adopts orphans).
"""

from __future__ import annotations

import contextlib
import os
import selectors
import signal
import subprocess
import time
from dataclasses import dataclass, field

from nanochat.tasks.cage.limits import Limits

PERIOD_S = 0.025
GRACE_S = 2.0  # how long the last words of an ended cage are waited for


@dataclass
class Outcome:
    """What was seen: `verdict` names the limit that ended the program, None where it ended by
    itself.
    """

    verdict: str | None = None
    returncode: int = 0
    stdout: bytearray = field(default_factory=bytearray)
    stderr: bytearray = field(default_factory=bytearray)
    wall_s: float = 0.0


def _children(pid: int) -> tuple[list[int], int]:
    """Child processes of `pid` and its number of threads; nothing for a process that is gone."""
    found: list[int] = []
    try:
        threads = os.listdir(f"/proc/{pid}/task")
        for thread in threads:
            with open(f"/proc/{pid}/task/{thread}/children") as file:
                found += map(int, file.read().split())
    except (OSError, ValueError):
        return found, 0
    return found, len(threads)


def _memory_bytes(pid: int) -> int:
    """Memory that `pid` has written: its own and shared anonymous pages, not the mapped files."""
    try:
        with open(f"/proc/{pid}/status") as file:
            lines = file.read().splitlines()
    except OSError:
        return 0
    counted = [line for line in lines if line.startswith(("RssAnon:", "RssShmem:"))]
    return sum(int(line.split()[1]) for line in counted) * 1024


def family(pid: int) -> list[tuple[int, int]]:
    """(process, threads) of `pid` and all below it, parents before children."""
    found, waiting = [], [pid]
    while waiting:
        current = waiting.pop(0)
        children, threads = _children(current)
        if threads:
            found.append((current, threads))
        waiting += children
    return found


def exceeded(pid: int, keepers: int, limits: Limits) -> str | None:
    """The limit that the program under `pid` has reached, if any; the first `keepers` processes
    belong to the cage.
    """
    tree = family(pid)[keepers:]
    if sum(threads for _, threads in tree) >= limits.processes:
        return "processes"
    if sum(_memory_bytes(process) for process, _ in tree) > limits.memory_bytes:
        return "memory"
    if tree and keepers:
        try:
            disk = os.statvfs(f"/proc/{tree[0][0]}/root/tmp")
        except OSError:
            return None
        # Size is limited by the mount itself; the number of files by nothing but this where the
        # mount cannot.
        if disk.f_files - disk.f_ffree > limits.files:
            return "disk"
    return None


def end(process: subprocess.Popen[bytes]) -> None:
    """Kill the cage: its first process inside, which takes the whole process namespace with it, and
    the one outside.
    """
    if process.poll() is not None:  # collected: its number may already be another process's
        return
    for pid in _children(process.pid)[0]:
        with contextlib.suppress(OSError):
            os.kill(pid, signal.SIGKILL)
    try:
        os.killpg(process.pid, signal.SIGKILL)
    except OSError:
        process.kill()


def _read(selector: selectors.BaseSelector, wait_s: float, output_bytes: int) -> None:
    """Take what the pipes hold, keeping at most one byte above the limit of each; forget what has
    ended.
    """
    for key, _ in selector.select(wait_s):
        data = os.read(key.fd, 65536) if key.data is not None else b""
        if not data:
            selector.unregister(key.fileobj)
            continue
        key.data.extend(data[: max(0, output_bytes + 1 - len(key.data))])


def _register(
    selector: selectors.BaseSelector, process: subprocess.Popen[bytes], outcome: Outcome
) -> int | None:
    """Listen to both pipes and, where the kernel tells, to the end of the process. Returns a
    descriptor to close.
    """
    for pipe, store in ((process.stdout, outcome.stdout), (process.stderr, outcome.stderr)):
        assert pipe is not None
        os.set_blocking(pipe.fileno(), False)
        selector.register(pipe, selectors.EVENT_READ, store)
    try:
        ending = os.pidfd_open(process.pid)
    except (OSError, AttributeError):
        return None
    selector.register(ending, selectors.EVENT_READ)
    return ending


def watch(process: subprocess.Popen[bytes], keepers: int, limits: Limits) -> Outcome:
    """Follow `process` (its stdout and stderr are pipes) to its end, or end it at the first limit
    it reaches.
    """
    outcome = Outcome()
    started = time.monotonic()
    next_look, stop_at = started + PERIOD_S, started + limits.timeout_s
    ending = None
    with selectors.DefaultSelector() as selector:
        try:
            ending = _register(selector, process, outcome)
            while outcome.verdict is None and process.poll() is None:
                _read(
                    selector,
                    max(0.0, min(next_look, stop_at) - time.monotonic()),
                    limits.output_bytes,
                )
                now = time.monotonic()
                if max(len(outcome.stdout), len(outcome.stderr)) > limits.output_bytes:
                    outcome.verdict = "output"
                elif now >= stop_at:
                    outcome.verdict = "timeout"
                elif now >= next_look:
                    outcome.verdict = exceeded(process.pid, keepers, limits)
                    next_look = now + PERIOD_S
        finally:
            end(process)
            outcome.returncode = process.wait()
            outcome.wall_s = time.monotonic() - started
        # The last words: pipes close when the last process that holds them is gone.
        stop_at = time.monotonic() + GRACE_S
        while selector.get_map() and time.monotonic() < stop_at:
            _read(selector, PERIOD_S, limits.output_bytes)
    if ending is not None:
        os.close(ending)
    if (
        outcome.verdict is None
        and max(len(outcome.stdout), len(outcome.stderr)) > limits.output_bytes
    ):
        outcome.verdict = "output"
    del outcome.stdout[limits.output_bytes :], outcome.stderr[limits.output_bytes :]
    return outcome
