"""Running Python that a model has written: only in a cage.

The cage is bubblewrap, else namespaces of our own making; in both the program has no network, a
read-only system with little in it, a small private /tmp, nobody's rights, an environment made from
nothing, and limits on time, memory, processes and output. Where neither works the program is not
run. Nothing here guards against holes in the kernel.
"""

from __future__ import annotations

import os
import re
import secrets
import shutil
import signal
import subprocess
import tempfile
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

from nanochat.tasks.cage import bubblewrap, namespaces
from nanochat.tasks.cage.limits import ENVIRONMENT, GUARD, MIB, CagePlan, Limits, guard_command
from nanochat.tasks.cage.supervisor import Outcome, watch

# Every way a run can end. "exit" is a program that left with status 0 before its last line: a test
# program in which the tested function calls sys.exit() has not passed its tests.
REASONS = tuple("ok exit error timeout memory output processes disk crash killed".split())
CRASHES = {signal.SIGSEGV, signal.SIGABRT, signal.SIGBUS, signal.SIGFPE, signal.SIGILL}
CRASHES |= {signal.SIGSYS}
# The last line of a traceback that tells of a limit the kernel enforced within one process.
TRACES = (
    ("memory", re.compile(r"^MemoryError\b|^OSError: \[Errno 12\]")),
    (
        "processes",
        re.compile(r"^BlockingIOError: \[Errno 11\]|^RuntimeError: can't start new thread"),
    ),
    ("disk", re.compile(r"^OSError: \[Errno (27|28)\]")),
)
CAGES = {"bubblewrap": bubblewrap, "namespaces": namespaces}


class CageUnavailable(ValueError):
    """No cage can be built on this machine, so the program was not run. The message says why and
    what to do.
    """


@dataclass(frozen=True)
class ExecResult:
    """How a program ended. `ok`: it ran to its last line. `reason`: one of REASONS. Output is cut
    at its limit.
    """

    ok: bool
    reason: str
    stdout: str
    stderr: str
    wall_s: float


def _bare_plan(program: bytes, limits: Limits, status_fd: int) -> CagePlan:
    """No cage at all, only limits: for people who asked for it on a machine that is itself
    expendable.
    """
    folder = Path(tempfile.mkdtemp(prefix="nanochat-unsafe-"))
    (folder / "main.py").write_bytes(program)
    argv = guard_command(str(GUARD), str(folder / "main.py"), limits, None, status_fd, nproc=False)
    return CagePlan(argv, folder=folder)


def _spawn(kind: str, program: bytes, limits: Limits) -> tuple[Outcome, bool]:
    """Run `program` once; the flag says whether every wall stood before it began."""
    seen, told = os.pipe()
    fds, folder = [told], None
    try:
        make = CAGES[kind].plan if kind in CAGES else _bare_plan
        plan = make(program, limits, told)
        fds, folder = fds + plan.fds, plan.folder
        process = subprocess.Popen(
            plan.argv,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            env=ENVIRONMENT,
            pass_fds=fds,
            cwd=folder,
            start_new_session=True,
        )
        with process:
            os.close(fds.pop(0))
            outcome = watch(process, plan.keepers, limits)
        os.set_blocking(seen, False)
        try:
            stood = os.read(seen, 1) == b"1"
        except BlockingIOError:
            stood = False
        return outcome, stood
    finally:
        for fd in [seen, *fds]:
            os.close(fd)
        if folder is not None:
            shutil.rmtree(folder, ignore_errors=True)


@lru_cache(maxsize=1)
def find_cage() -> tuple[str | None, str]:
    """The kind of cage that works here, tried with one empty program; (None, why each one does not)
    otherwise.
    """
    reasons = []
    for kind, module in CAGES.items():
        why = module.missing()
        if why is None:
            try:
                outcome, stood = _spawn(kind, b"print('in')\n", Limits())
            except OSError as error:
                why = str(error)
            else:
                if stood and outcome.returncode == 0 and outcome.stdout == b"in\n":
                    return kind, ""
                lines = outcome.stderr.decode(errors="replace").strip().splitlines()
                why = lines[-1] if lines else f"ended with {outcome.verdict or outcome.returncode}"
        reasons.append(f"{kind}: {why}")
    return None, "; ".join(reasons)


def choose_cage(unsafe: bool = False) -> str:
    """The kind of cage to use; "none" where none works and `unsafe` allows it, else CageUnavailable
    is raised.
    """
    kind, why = find_cage()
    if kind is None and not unsafe:
        raise CageUnavailable(
            f"model-written code was not run, because no sandbox can be built here ({why}); "
            f"{bubblewrap.INSTALL} "
            "on a machine that allows namespaces, or pass --unsafe-exec where losing the machine "
            "would not matter"
        )
    return kind or "none"


def classify(outcome: Outcome, end_status: int) -> str:
    """Name what happened. `end_status` is the exit status that only the program's last line
    gives."""
    code = outcome.returncode
    if outcome.verdict is not None:
        return outcome.verdict
    if code == end_status:
        return "ok"
    if code == 0:
        return "exit"
    number = -code if code < 0 else code - 128
    if number == signal.SIGXCPU:
        return "timeout"
    if number == signal.SIGXFSZ:
        return "disk"
    if number in CRASHES:
        return "crash"
    if code < 0 or 0 < number <= 64:
        return "killed"
    lines = outcome.stderr.decode(errors="replace").strip().splitlines()
    for reason, trace in TRACES:
        if lines and trace.match(lines[-1]):
            return reason
    return "error"


def run_python(
    code: str,
    timeout_s: float = 5.0,
    memory_bytes: int = 512 * MIB,
    unsafe: bool = False,
    limits: Limits | None = None,
) -> ExecResult:
    """Run a Python program in a cage and say how it ended.

    The program gets the standard library, an empty standard input and nothing else. `limits`
    replaces `timeout_s` (wall clock) and `memory_bytes` (all its processes together) and sets the
    rest. Takes about 25 ms more than the program.

    Raises CageUnavailable where no cage can be built and `unsafe` is False, ValueError for
    impossible limits.
    """
    limits = limits or Limits(timeout_s=timeout_s, memory_bytes=memory_bytes)
    problems = limits.problems()
    if problems:
        raise ValueError("; ".join(problems))
    kind = choose_cage(unsafe)
    # A status that a program would not leave with by itself: reaching the last line is what counts,
    # and os._exit(0), or a tested function that calls sys.exit(), does not reach it.
    end_status = 64 + secrets.randbelow(60)
    program = f"{code}\nraise SystemExit({end_status})\n".encode("utf-8", "backslashreplace")
    outcome, stood = _spawn(kind, program, limits)
    stderr = outcome.stderr.decode("utf-8", "replace")
    if not stood:
        told = stderr.strip()[-300:] or f"nothing heard from it in {outcome.wall_s:.1f} s"
        raise CageUnavailable(
            f"the {kind} sandbox did not start this time, so the program was not run: {told}"
        )
    reason = classify(outcome, end_status)
    return ExecResult(
        reason == "ok", reason, outcome.stdout.decode("utf-8", "replace"), stderr, outcome.wall_s
    )


def run_many(
    codes: Sequence[str],
    workers: int | None = None,
    timeout_s: float = 5.0,
    memory_bytes: int = 512 * MIB,
    unsafe: bool = False,
) -> list[ExecResult]:
    """`run_python` for each program, `workers` (default: one per core) at a time; results in the
    order given.
    """
    choose_cage(unsafe)  # once, and before any thread waits for another's answer
    with ThreadPoolExecutor(max_workers=workers or os.cpu_count() or 1) as pool:
        return list(pool.map(lambda code: run_python(code, timeout_s, memory_bytes, unsafe), codes))
