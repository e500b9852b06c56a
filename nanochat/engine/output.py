"""Tokens of one answer to the text people see, as they come: whole characters only, stop strings
found and left out.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from nanochat.engine.special import SpecialIds
from nanochat.tokenizer.stream import StreamDecoder

if TYPE_CHECKING:
    from nanochat.tokenizer import Tokenizer

PieceKind = Literal["text", "python", "python_output"]


@dataclass(frozen=True)
class Piece:
    """Some of an answer's text: what it says ("text"), a calculator call ("python") or its result
    ("python_output").
    """

    kind: PieceKind
    text: str


class AnswerText:
    """Turns ids into pieces. A stop string is looked for in what the answer says, across token
    boundaries: text that could be the beginning of one is held back until the next tokens decide.
    """

    def __init__(self, tokenizer: Tokenizer, special: SpecialIds, stop: tuple[str, ...]) -> None:
        self._decoder = StreamDecoder(tokenizer)
        self._special, self._stop = special, stop
        self._kind: PieceKind = "text"
        self._held = ""
        self.stopped_by: str | None = None

    def push(self, token: int) -> list[Piece]:
        """The text that became certain with this token. After a stop string (`stopped_by`) there is
        no more.
        """
        if self.stopped_by is not None:
            return []
        if token not in self._special.all:
            return self._take(self._decoder.push(token))
        pieces = (
            self.flush()
        )  # a delimiter is no text, and no character or stop string reaches across it
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
            pieces.append(Piece("text", self._held))
        self._held = ""
        return pieces

    def _take(self, text: str) -> list[Piece]:
        if self._kind != "text":
            return [Piece(self._kind, text)] if text else []
        text = self._held + text
        found = [(text.find(stop), stop) for stop in self._stop if stop in text]
        if found:
            at, self.stopped_by = min(found)
            text, self._held = text[:at], ""
        else:
            keep = max((_overlap(text, stop) for stop in self._stop), default=0)
            text, self._held = text[: len(text) - keep], text[len(text) - keep :]
        return [Piece("text", text)] if text else []


def _overlap(text: str, stop: str) -> int:
    """Length of the longest end of `text` that is a proper beginning of `stop`."""
    for length in range(min(len(text), len(stop) - 1), 0, -1):
        if text.endswith(stop[:length]):
            return length
    return 0
