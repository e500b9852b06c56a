"""One answer as it grows: what it says, the calculator's part in it, its tokens' log-
probabilities."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any

from nanochat.engine import Event
from nanochat.engine.event import TokenScore
from nanochat.tokenizer import Tokenizer


@dataclass
class Delta:
    """What one update added to an answer."""

    text: str = ""
    parts: list[dict[str, str]] = field(default_factory=list)
    scores: list[TokenScore] = field(default_factory=list)
    finish_reason: str | None = None
    finish_detail: str = ""

    @property
    def shows(self) -> bool:
        """Whether a person would notice it."""
        return bool(self.text or self.parts or self.finish_reason)


class Answer:
    """Collects the updates of one sample.

    `parts` are the pieces in order, as a message's content lists them, so that a client that sends
    them back next turn gives the model exactly what it wrote. `used_tool`: there is more in them
    than text.
    """

    def __init__(self, tokenizer: Tokenizer) -> None:
        self.parts: list[dict[str, str]] = []
        self.scores: list[TokenScore] = []
        self.n_tokens = self.n_reused = 0
        self.used_tool = False
        self.finish_reason: str | None = None
        self.finish_detail = ""

    @property
    def text(self) -> str:
        return "".join(part["text"] for part in self.parts if part["type"] == "text")

    def add(self, update: Event) -> Delta:
        """Take an update in; what it adds."""
        delta = Delta(finish_reason=update.finish_reason, finish_detail=update.finish_detail)
        for kind, text in update.pieces:
            if not self.parts or self.parts[-1]["type"] != kind:
                self.parts.append({"type": kind, "text": ""})
            self.parts[-1]["text"] += text
            if kind == "text":
                delta.text += text
            else:
                self.used_tool = True
                delta.parts.append({"type": kind, "text": text})
        if update.token is not None:
            self.n_tokens += 1
        delta.scores += update.scores
        self.scores += update.scores
        self.n_reused = update.reused
        self.finish_reason, self.finish_detail = update.finish_reason, update.finish_detail
        return delta


def chat_logprobs(tokenizer: Tokenizer, scores: Iterable[TokenScore]) -> dict[str, Any]:
    """Scores in the form of chat completions."""

    def entry(token: int, logprob: float) -> dict[str, Any]:
        return {
            "token": tokenizer.decode([token]),
            "logprob": logprob,
            "bytes": list(tokenizer.decode_bytes([token])),
        }

    content = [
        {
            **entry(s.token, s.logprob),
            "top_logprobs": [entry(token, logprob) for token, logprob in s.top],
        }
        for s in scores
    ]
    return {"content": content, "refusal": None}


def completion_logprobs(
    tokenizer: Tokenizer, scores: Iterable[TokenScore], offset: int
) -> dict[str, Any]:
    """Scores in the form of completions. `offset`: characters of the answer before the first of
    them.
    """
    tokens, values, tops, offsets = [], [], [], []
    for score in scores:
        tokens.append(tokenizer.decode([score.token]))
        values.append(score.logprob)
        tops.append({tokenizer.decode([token]): logprob for token, logprob in score.top})
        offsets.append(offset)
        offset += len(tokens[-1])
    return {
        "tokens": tokens,
        "token_logprobs": values,
        "top_logprobs": tops,
        "text_offset": offsets,
    }
