"""What rows say, as numbers: which rows are equal, and whether anything has changed."""

from __future__ import annotations

import hashlib
import json
import string
import unicodedata
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import numpy as np

_IGNORED = (string.whitespace + string.punctuation).encode()


@dataclass(frozen=True, kw_only=True)
class Content:
    """`keys` (rows,) uint64, spread evenly over their range: two rows are equal when theirs are.
    `digest`: hexadecimal, another one whenever anything in any row changes.
    """

    keys: np.ndarray
    digest: str


def is_held_out(keys: np.ndarray, share: float) -> np.ndarray:
    """(rows,) bool: which rows belong to the held-out side, about `share` of all there are.

    Decided by the key alone, so a row is on the same side wherever it stands, however often and in
    every run; a larger share holds out all that a smaller one does.
    """
    return keys < np.uint64(share * 2**64)


def content_of(conversations: Iterable[dict[str, Any]]) -> Content:
    """The content of rows, in one pass over them."""
    keys = bytearray()
    exact = hashlib.blake2b(digest_size=8)
    for conversation in conversations:
        messages = conversation["messages"]
        keys += row_key(messages)
        exact.update(json.dumps(messages, sort_keys=True).encode())
    return Content(keys=np.frombuffer(bytes(keys), dtype="<u8"), digest=exact.hexdigest())


def row_key(messages: Iterable[dict[str, Any]]) -> bytes:
    """8 bytes that are the same for conversations with the same letters and digits in the same
    turns: case, blanks, ASCII punctuation and the way a letter is composed make no difference.

    A system message counts as the beginning of the user's turn, as it does when it is rendered.
    """
    turns: list[bytes] = []
    system = b""
    for message in messages:
        text = system + _plain(spoken_or_called(message["content"]))
        system = text if message["role"] == "system" else b""
        if message["role"] != "system":
            turns.append(text)
    return hashlib.blake2b(b"\0".join(turns), digest_size=8).digest()


def spoken_or_called(content: str | list[dict[str, str]]) -> str:
    """Everything a message holds, tool calls and their results too."""
    return content if isinstance(content, str) else "".join(part["text"] for part in content)


def _plain(text: str) -> bytes:
    if not text.isascii():
        text = unicodedata.normalize("NFKC", text)
    raw = text.casefold().encode("utf-8", "replace")
    return raw.translate(None, _IGNORED) or raw.strip()
