"""What a person types, pastes or pipes in, one message at a time."""

from __future__ import annotations

import select
import sys

LEAVE = ("quit", "exit")  # what a person types to leave
PASTE_GAP_S = 0.05  # lines of a paste arrive faster than a person can type


def read_message(prompt: str) -> str:
    """A message from the keyboard, with history and editing where Python has them. A pasted text of
    several lines is one message. EOFError at the end, UnicodeDecodeError for what is no text.

    GNU readline asks the terminal to mark what is pasted. Without it, lines that arrive at once
    count as pasted.
    """
    if sys.stdin.encoding in ("ascii", "us-ascii"):
        sys.stdin.reconfigure(encoding="utf-8")  # type: ignore[union-attr]
    marked = _marks_pastes() and sys.stdout.isatty()  # input() edits lines on a terminal only
    typed_ahead = not marked and _more_input(0)
    lines = [input(prompt)]
    while not marked and not typed_ahead and _more_input(PASTE_GAP_S):
        lines.append(input())
    return "\n".join(lines)


def _marks_pastes() -> bool:
    """Turn line editing on. Whether it knows a paste from typing."""
    try:
        import readline
    except ImportError:
        return False
    if "libedit" in (readline.__doc__ or ""):
        return False
    readline.parse_and_bind("set enable-bracketed-paste on")  # Python turns it off
    return True


def _more_input(wait_s: float) -> bool:
    try:
        return bool(select.select([sys.stdin], [], [], wait_s)[0])
    except (OSError, ValueError):  # a console of Windows, or no file
        return False


def read_piped() -> str | None:
    """All of standard input as one message when it is no terminal; None when it is one. A last line
    `quit` or `exit` is not part of it. ValueError when it is not UTF-8.
    """
    if sys.stdin.isatty():
        return None
    piped = getattr(sys.stdin, "buffer", None)
    try:
        text = piped.read().decode("utf-8-sig") if piped is not None else sys.stdin.read()
    except UnicodeDecodeError as error:
        raise ValueError(
            f"standard input: byte {error.start} is not UTF-8; convert the text, e.g. with iconv"
        ) from None
    lines = text.replace("\r\n", "\n").strip().split("\n")
    if lines[-1].strip().lower() in LEAVE:
        lines.pop()
    return "\n".join(lines)
