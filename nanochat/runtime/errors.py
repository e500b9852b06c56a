"""Errors as lines for people: what a ValueError says, and what a failed file operation means and
needs.
"""

from __future__ import annotations

import errno
import os

from nanochat.runtime.printable import printable

# What to do about a file operation that failed, by its error number.
HINTS = {
    errno.ENOSPC: "the disk is full; make room, or set NANOCHAT_BASE_DIR to a folder on another "
    "disk",
    errno.EDQUOT: "your disk quota is used up; make room, or set NANOCHAT_BASE_DIR to a folder "
    "on another disk",
    errno.EROFS: "this disk is read-only; set NANOCHAT_BASE_DIR to a folder that you can write to",
    errno.EACCES: "you may not do this; check owner and permissions, or set NANOCHAT_BASE_DIR to "
    "another folder",
    errno.EPERM: "you may not do this; check owner and permissions, or set NANOCHAT_BASE_DIR to "
    "another folder",
    errno.ENOTDIR: "a file is where a folder is needed; move it away, or name another place",
    errno.EEXIST: "a file is where a folder is needed; move it away, or name another place",
    errno.EISDIR: "this is a folder, not a file; name a file",
    errno.ENOENT: "there is no such file or folder; check the name",
    errno.EMFILE: "too many files are open; raise the limit with `ulimit -n 4096`",
}


MEMORY = ("out of memory", "can't allocate memory", "not enough memory")


def is_out_of_memory(error: BaseException) -> bool:
    """Whether Python, torch or the GPU ran out of memory."""
    return isinstance(error, MemoryError) or any(words in str(error) for words in MEMORY)


def rank() -> str:
    """This process's number among those of its run, from torchrun's or srun's variables: before
    there is a World.
    """
    return os.environ.get("RANK") or os.environ.get("SLURM_PROCID") or "0"


def reason(error: BaseException) -> str:
    """The first line of what an error says, to stand in brackets; its kind when it says nothing."""
    said = next((row for row in str(error).split("\n") if row.strip()), type(error).__name__)
    return printable(said.strip()[:200])


def lines(error: BaseException) -> list[str]:
    """The error as one line for each problem, without the word `error:`."""
    if is_out_of_memory(error):
        return [
            "out of memory: use a smaller --depth, --device-batch-size or --max-seq-len, or a "
            "larger machine; "
            "`nanochat plan` says what a run needs"
        ]
    if isinstance(error, OSError) and error.errno in HINTS:
        if error.filename is not None:
            return [f"{printable(_text(error.filename))}: {HINTS[error.errno]}"]
        if error.errno in (
            errno.ENOSPC,
            errno.EDQUOT,
            errno.EROFS,
        ):  # libraries that do not name the file
            return [HINTS[error.errno]]
    text = str(error) or type(error).__name__
    rows = [line.rstrip("\r").removeprefix("error: ") for line in text.split("\n")]
    return [printable(row) for row in rows if row.strip()]


def _text(path: object) -> str:
    return path.decode(errors="replace") if isinstance(path, bytes) else str(path)
