"""Standard output and standard error that cannot end a run: not by a character that the terminal's
encoding lacks, not by a full disk, a closed pipe or a terminal that is gone.
"""

from __future__ import annotations

import contextlib
import errno
import os
import sys
from collections.abc import Callable, Iterator
from typing import Any, TextIO

PASSING = (errno.ENOSPC, errno.EDQUOT, errno.EAGAIN)  # a later write may succeed


class OutputError(OSError):
    """What had to be printed could not be."""


class SteadyStream:
    """A text stream that takes every text and goes on after a write has failed.

    essential: the output is all that a command gives, so a failure is raised: BrokenPipeError when
    its reader is gone, OutputError otherwise.
    """

    def __init__(self, stream: TextIO, name: str) -> None:
        self.stream = stream
        self.name = name
        self.essential = False
        self.failure: OSError | None = None
        self.gone = False
        if getattr(stream, "errors", "") in ("strict", "surrogateescape"):
            with contextlib.suppress(AttributeError, ValueError):  # not a file's stream
                stream.reconfigure(errors="backslashreplace")  # type: ignore[attr-defined]

    def __getattr__(self, name: str) -> Any:
        return getattr(self.stream, name)

    def write(self, text: str) -> int:
        self._try(self.stream.write, text)
        return len(text)

    def flush(self) -> None:
        self._try(self.stream.flush)

    def discard(self) -> None:
        """Send what is still held back, and what other processes write here, nowhere."""
        self.gone = True
        with contextlib.suppress(OSError):
            nowhere = os.open(os.devnull, os.O_WRONLY)
            os.dup2(nowhere, self.stream.fileno())
            os.close(nowhere)

    def _try(self, action: Callable[..., object], *values: str) -> None:
        if not self.gone:
            try:
                action(*values)
            except OSError as error:
                self.failure = error
                if error.errno not in PASSING:
                    self.discard()
            except RuntimeError:  # a signal handler prints in the middle of a print
                pass
        if self.failure is None or not self.essential:
            return
        if isinstance(self.failure, BrokenPipeError):
            raise self.failure
        raise OutputError(f"{self.name}: {self.failure.strerror}")


@contextlib.contextmanager
def steady_output() -> Iterator[None]:
    """Within the block stdin, stdout and stderr are there, and the last two are steady."""
    stdin, stdout, stderr = sys.stdin, sys.stdout, sys.stderr
    if sys.stdin is None:  # `<&-` in a shell; the next file opened would get its number
        sys.stdin = open(os.devnull)
    steady = [_steady(sys.stdout, "standard output"), _steady(sys.stderr, "standard error")]
    sys.stdout, sys.stderr = steady  # type: ignore[assignment]
    try:
        yield
    finally:
        for stream in steady:
            stream.essential = False
            stream.flush()
            if stream.failure is not None:  # or Python complains of it at its end
                stream.discard()
        sys.stdin = stdin
        sys.stdout = stdout
        sys.stderr = stderr


def _steady(stream: TextIO | None, name: str) -> SteadyStream:
    if stream is not None:
        return SteadyStream(stream, name)
    closed = SteadyStream(open(os.devnull, "w"), name)
    closed.gone = True
    closed.failure = OutputError(errno.EBADF, "it is closed")
    return closed


def output_is_the_result() -> None:
    """Say that what this process prints is all it gives: when it cannot be printed, it ends."""
    if isinstance(sys.stdout, SteadyStream):
        sys.stdout.essential = True
