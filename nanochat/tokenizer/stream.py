"""Decoding token by token without ever showing half a character."""

from __future__ import annotations

import codecs
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from nanochat.tokenizer.bpe import Tokenizer


class StreamDecoder:
    """Turns ids into text as they arrive; the pieces joined together equal `tokenizer.decode` of
    all the ids.

    A byte-level token may end inside a multi-byte character. Those bytes wait until the character
    is complete, so a consumer (terminal, SSE stream) sees only whole characters. Bytes that can
    never become one turn into U+FFFD as soon as that is known.
    """

    def __init__(self, tokenizer: Tokenizer) -> None:
        self._tokenizer = tokenizer
        self._utf8 = codecs.getincrementaldecoder("utf-8")(errors="replace")

    def push(self, token_id: int) -> str:
        """The text that became certain with this token, possibly the empty string."""
        return self._utf8.decode(self._tokenizer.decode_bytes([token_id]))

    def flush(self) -> str:
        """What is left at the end (U+FFFD for an unfinished character); the decoder can then be
        used afresh.
        """
        rest = self._utf8.decode(b"", final=True)
        self._utf8.reset()
        return rest
