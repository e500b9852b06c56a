"""Other programs that are asked something."""

from __future__ import annotations

import shutil
import subprocess

PATIENCE_S = 10.0


def output_of(*words: str, timeout_s: float = PATIENCE_S) -> str | None:
    """What a program prints; None where it is not there, fails or does not end in time."""
    program = shutil.which(words[0])
    if program is None:
        return None
    try:
        done = subprocess.run(
            [program, *words[1:]],
            check=False,
            capture_output=True,
            text=True,
            errors="replace",
            timeout=timeout_s,
            stdin=subprocess.DEVNULL,
        )
    except (OSError, subprocess.SubprocessError):
        return None
    return done.stdout if done.returncode == 0 else None
