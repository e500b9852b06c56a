"""The one record that goes from the engine to whoever reads an answer: screen, socket or test."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, NamedTuple

from nanochat.engine.sequence import FinishReason
from nanochat.tokenizer.stream import Piece


class TokenScore(NamedTuple):
    """A token with its log-probability (nats, before temperature) and the likeliest ones at its
    place.
    """

    token: int
    logprob: float
    top: tuple[tuple[int, float], ...] = ()


@dataclass(frozen=True, kw_only=True)
class Event:
    """One token of one sample of a request, or its end, or both.

    `token` None: the sample ended without one (cancelled, or nothing was to be generated). `mask`
    1: the model chose the token, 0: a tool forced it. `pieces` is the text that became certain with
    it, `scores` the log-probabilities of the tokens this text is made of, when asked for. `reused`
    counts the prompt tokens that came from the cache. The last event of a sample has
    `finish_reason` and, where a person would ask why, `finish_detail`.
    """

    request: int
    sample: int = 0
    token: int | None = None
    mask: int = 1
    pieces: tuple[Piece, ...] = ()
    scores: tuple[TokenScore, ...] = ()
    reused: int = 0
    finish_reason: FinishReason | None = None
    finish_detail: str = ""

    @property
    def text(self) -> str:
        """What the answer says, without tool calls and their results."""
        return "".join(piece.text for piece in self.pieces if piece.kind == "text")

    def to_json(self) -> dict[str, Any]:
        """Plain values for `json.dumps`."""
        return vars(self)

    @classmethod
    def from_json(cls, values: dict[str, Any]) -> Event:
        pieces = tuple(Piece(*piece) for piece in values["pieces"])
        scores = tuple(
            TokenScore(token, logprob, tuple((other, value) for other, value in top))
            for token, logprob, top in values["scores"]
        )
        return cls(**{**values, "pieces": pieces, "scores": scores})
