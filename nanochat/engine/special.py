"""The ids of the special tokens, looked up once."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from nanochat.tokenizer import Tokenizer


@dataclass(frozen=True)
class SpecialIds:
    """Ids of the tokens the engine acts on. None where a vocabulary of another make lacks one."""

    bos: int | None
    assistant_end: int | None
    python_start: int | None
    python_end: int | None
    output_start: int | None
    output_end: int | None
    all: frozenset[int]

    @classmethod
    def of(cls, tokenizer: Tokenizer) -> SpecialIds:
        ids = dict(tokenizer.special_tokens)
        return cls(
            ids.get("<|bos|>"),
            ids.get("<|assistant_end|>"),
            ids.get("<|python_start|>"),
            ids.get("<|python_end|>"),
            ids.get("<|output_start|>"),
            ids.get("<|output_end|>"),
            frozenset(ids.values()),
        )

    def ends(self, token: int) -> bool:
        """Whether an answer is over with this token."""
        return token in (self.assistant_end, self.bos)
