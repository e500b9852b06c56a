"""What is kept back for the exam: one decision for words and one for pairs of numbers.

The text generator and the training conversations ask these functions and leave out what is held
out; the exam asks them and uses nothing else. Decisions are hashes, so they need no list and never
depend on the order of generation.
"""

from __future__ import annotations

import zlib

WORD_SHARE = 8  # one word in eight is held out
PAIR_SHARE = 8  # and one pair of operands in eight
SMALL = 20  # both operands up to here belong to everybody's tables and are never held out


def _bucket(text: str, share: int) -> bool:
    return zlib.crc32(text.encode()) % share == 0


def held_out_word(word: str) -> bool:
    """Whether a word of the spelling and counting supply (words.py) is for the exam only; case does
    not matter.
    """
    return _bucket("word:" + word.lower(), WORD_SHARE)


def held_out_pair(left: int, right: int) -> bool:
    """Whether two operands, in either order and under any operation, are for the exam only."""
    low, high = sorted((abs(left), abs(right)))
    return high > SMALL and _bucket(f"pair:{low}:{high}", PAIR_SHARE)
