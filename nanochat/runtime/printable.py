"""Text of others on a terminal: what would steer the terminal is shown as an escape."""

from __future__ import annotations

import unicodedata

STEERING = {"Cc", "Cf", "Cs", "Zl", "Zp"}  # controls, formats, half characters, separators
HARMLESS = "\t\u200c\u200d\ufeff"  # joiners belong to words and emoji


def printable(text: str, keep: str = "") -> str:
    """`text` with control characters as escapes, such as \\x1b, but for those in `keep`."""
    return "".join(
        char.encode("unicode_escape").decode("ascii")
        if unicodedata.category(char) in STEERING and char not in HARMLESS + keep
        else char
        for char in text
    )
