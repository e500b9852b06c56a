"""A child process in a terminal of its own, as a person would use it."""

from __future__ import annotations

import os
import pty
import re
import select
import signal
import sys
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]


class Terminal:
    """A child process with a terminal of its own. `shown`: what the terminal got from it."""

    def __init__(self, *words: str, **env: str) -> None:
        self.pid, self.file = pty.fork()
        if self.pid == 0:  # the child
            variables = {**os.environ, "TERM": "xterm-256color", "PYTHONPATH": str(ROOT), **env}
            os.execve(sys.executable, [sys.executable, *words], variables)
        self.shown = ""

    def wait(self, pattern: str, seconds: float = 60.0) -> str:
        """What is shown once it matches the regular expression."""
        end = time.monotonic() + seconds
        while not re.search(pattern, self.shown, re.DOTALL):
            assert time.monotonic() < end, f"no {pattern!r} in {self.shown!r}"
            if not select.select([self.file], [], [], 0.1)[0]:
                continue
            try:
                self.shown += os.read(self.file, 65536).decode("utf-8", "replace")
            except OSError:
                raise AssertionError(f"the child has ended after {self.shown!r}") from None
        return self.shown

    def asked(self, prompt: str) -> None:
        """Wait for the prompt. What is typed before it may be lost."""
        self.wait(re.escape(prompt) + r"\Z")

    def send(self, text: str | bytes) -> None:
        os.write(self.file, text.encode() if isinstance(text, str) else text)

    def paste(self, text: str) -> None:
        """As a terminal does it: the text is marked where that was asked for, and newlines are what
        the key Enter sends.
        """
        asked = self.shown.rfind("\x1b[?2004h") > self.shown.rfind("\x1b[?2004l")
        text = text.replace("\n", "\r")
        self.send(f"\x1b[200~{text}\x1b[201~" if asked else text)

    def end(self, seconds: float = 60.0) -> int:
        """Wait for the child's end -> its exit code."""
        end = time.monotonic() + seconds
        while True:
            if not select.select([self.file], [], [], max(0.0, end - time.monotonic()))[0]:
                os.kill(self.pid, signal.SIGKILL)
                raise AssertionError(f"the child goes on after {self.shown!r}")
            try:
                data = os.read(self.file, 65536)
            except OSError:
                break
            self.shown += data.decode("utf-8", "replace")
        os.close(self.file)
        return os.waitstatus_to_exitcode(os.waitpid(self.pid, 0)[1])
