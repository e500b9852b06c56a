"""From ids to text as they come: whole characters only, what an answer says apart from its tool
calls, stop strings found and left out.
"""

from __future__ import annotations

import codecs
from collections import deque
from typing import Any, Literal, NamedTuple, Protocol

from nanochat.tokenizer.special_tokens import SpecialIds

PieceKind = Literal["text", "python", "python_output"]


class Decoder(Protocol):
    """What streaming needs of a tokenizer."""

    special_tokens: dict[str, int]

    def decode_bytes(self, ids: list[int]) -> bytes: ...


class Piece(NamedTuple):
    """Some of an answer: what it says ("text"), a calculator call ("python") or its result
    ("python_output").
    """

    kind: PieceKind
    text: str


class StreamDecoder:
    """Turns ids into text as they arrive; the pieces joined together equal `tokenizer.decode` of
    all the ids.

    A byte-level token may end inside a multi-byte character. Those bytes wait until the character
    is complete, so a consumer (terminal, SSE stream) sees only whole characters. Bytes that can
    never become one turn into U+FFFD as soon as that is known.
    """

    def __init__(self, tokenizer: Decoder) -> None:
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


class AnswerText:
    """Turns the ids of one answer into pieces. A stop string is looked for in what the answer says,
    across token boundaries: text that could be the beginning of one is held back until the next
    tokens decide.
    """

    def __init__(self, tokenizer: Decoder, stop: tuple[str, ...]) -> None:
        self._decoder = StreamDecoder(tokenizer)
        self._special = SpecialIds.of(tokenizer.special_tokens)
        self._stop = stop
        self._kind: PieceKind = "text"
        self._held = ""
        self._n_decoded = 0  # characters of "text", held ones included
        self._n_shown = 0
        self._scores: deque[tuple[int, Any]] = deque()
        self.stopped_by: str | None = None

    def push(self, token: int, score: Any = None) -> list[Piece]:
        """The text that became certain with this token. After a stop string (`stopped_by`) there is
        no more. `score`: anything to be had from `scores` once the token's text has been shown.
        """
        if self.stopped_by is not None:
            return []
        if token not in self._special.all:
            if score is not None and self._kind == "text":
                self._scores.append((self._n_decoded, score))
            return self._take(self._decoder.push(token))
        pieces = self.flush()  # no character or stop string reaches across a delimiter
        if token == self._special.python_start:
            self._kind = "python"
        elif token == self._special.output_start:
            self._kind = "python_output"
        elif token in (self._special.python_end, self._special.output_end):
            self._kind = "text"
        return pieces

    def flush(self) -> list[Piece]:
        """Everything held back: at the end of the answer nothing can complete it any more."""
        if self.stopped_by is not None:
            return []
        pieces = self._take(self._decoder.flush())
        if self._held and self.stopped_by is None:
            pieces.append(self._shown(self._held))
            self._held = ""
        return pieces

    def scores(self) -> list[Any]:
        """The scores of tokens whose text has been shown since the last call. Those of a tool's
        part of the answer and those of a stop string are never among them.
        """
        certain = []
        while self._scores and self._scores[0][0] < self._n_shown:
            certain.append(self._scores.popleft()[1])
        return certain

    def _take(self, text: str) -> list[Piece]:
        if self._kind != "text":
            return [Piece(self._kind, text)] if text else []
        self._n_decoded += len(text)
        text = self._held + text
        found = [(text.find(stop), stop) for stop in self._stop if stop in text]
        if found:
            at, self.stopped_by = min(found)
            text, self._held = text[:at], ""
        else:
            keep = max((_overlap(text, stop) for stop in self._stop), default=0)
            text, self._held = text[: len(text) - keep], text[len(text) - keep :]
        return [self._shown(text)] if text else []

    def _shown(self, text: str) -> Piece:
        self._n_shown += len(text)
        return Piece("text", text)


def _overlap(text: str, stop: str) -> int:
    """Length of the longest end of `text` that is a proper beginning of `stop`."""
    for length in range(min(len(text), len(stop) - 1), 0, -1):
        if text.endswith(stop[:length]):
            return length
    return 0
