"""The nine special tokens of the chat format, and their ids in a vocabulary."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

BOS = "<|bos|>"
USER_START, USER_END = "<|user_start|>", "<|user_end|>"
ASSISTANT_START, ASSISTANT_END = "<|assistant_start|>", "<|assistant_end|>"
PYTHON_START, PYTHON_END = "<|python_start|>", "<|python_end|>"
OUTPUT_START, OUTPUT_END = "<|output_start|>", "<|output_end|>"

# In the order of their ids, which follow the merges.
SPECIAL_TOKENS = (
    BOS,
    USER_START,
    USER_END,
    ASSISTANT_START,
    ASSISTANT_END,
    PYTHON_START,
    PYTHON_END,
    OUTPUT_START,
    OUTPUT_END,
)


@dataclass(frozen=True, kw_only=True)
class SpecialIds:
    """Ids of the tokens that a running answer is watched for. None where a vocabulary of another
    make lacks one.
    """

    bos: int | None
    assistant_end: int | None
    python_start: int | None
    python_end: int | None
    output_start: int | None
    output_end: int | None
    all: frozenset[int]

    @classmethod
    def of(cls, special_tokens: Mapping[str, int]) -> SpecialIds:
        return cls(
            bos=special_tokens.get(BOS),
            assistant_end=special_tokens.get(ASSISTANT_END),
            python_start=special_tokens.get(PYTHON_START),
            python_end=special_tokens.get(PYTHON_END),
            output_start=special_tokens.get(OUTPUT_START),
            output_end=special_tokens.get(OUTPUT_END),
            all=frozenset(special_tokens.values()),
        )

    def ends(self, token: int) -> bool:
        """Whether an answer is over with this token."""
        return token in (self.assistant_end, self.bos)
