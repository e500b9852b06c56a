"""One answer as it grows: what it says, the calculator's part in it, the scores of its tokens."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from nanochat.engine import Event
from nanochat.engine.event import TokenScore
from nanochat.tokenizer import Tokenizer
from nanochat.tokenizer.stream import StreamDecoder


class Answer:
    """Collects the events of one sample.

    `parts` are the pieces in order, as a message's content lists them, so that a client that sends
    them back next turn gives the model exactly what it wrote.
    """

    def __init__(self) -> None:
        self.parts: list[dict[str, str]] = []
        self.scores: list[TokenScore] = []
        self.n_tokens = 0
        self.n_reused = 0
        self.finish_reason: str | None = None
        self.finish_detail = ""

    @property
    def text(self) -> str:
        return "".join(part["text"] for part in self.parts if part["type"] == "text")

    @property
    def used_tool(self) -> bool:
        """There is more in it than text."""
        return any(part["type"] != "text" for part in self.parts)

    def add(self, event: Event) -> None:
        for kind, text in event.pieces:
            if not self.parts or self.parts[-1]["type"] != kind:
                self.parts.append({"type": kind, "text": ""})
            self.parts[-1]["text"] += text
        self.scores += event.scores
        self.n_tokens += event.token is not None
        self.n_reused = event.reused
        self.finish_reason = event.finish_reason
        self.finish_detail = event.finish_detail


def tool_parts(event: Event) -> list[dict[str, str]]:
    """The calculator's calls and results in an event."""
    return [{"type": kind, "text": text} for kind, text in event.pieces if kind != "text"]


def chat_logprobs(tokenizer: Tokenizer, scores: Iterable[TokenScore]) -> dict[str, Any]:
    """Scores in the form of chat completions."""

    def entry(token: int, logprob: float) -> dict[str, Any]:
        data = tokenizer.decode_bytes([token])
        return {
            "token": data.decode("utf-8", "replace"),
            "logprob": logprob,
            "bytes": list(data),
        }

    content = [
        {
            **entry(score.token, score.logprob),
            "top_logprobs": [entry(token, logprob) for token, logprob in score.top],
        }
        for score in scores
    ]
    return {"content": content, "refusal": None}


class CompletionLogprobs:
    """Scores in the form of completions, piece by piece: where a token's text begins depends on
    those before it.
    """

    def __init__(self, tokenizer: Tokenizer) -> None:
        self.tokenizer = tokenizer
        self._decoder = StreamDecoder(tokenizer)
        self._n_characters = 0

    def of(self, scores: Iterable[TokenScore]) -> dict[str, Any]:
        """`text_offset` counts characters of the answer. The sampled token is always among the
        likeliest.
        """
        columns: dict[str, list[Any]] = {
            "tokens": [],
            "token_logprobs": [],
            "top_logprobs": [],
            "text_offset": [],
        }
        for score in scores:
            columns["tokens"].append(self._name(score.token))
            columns["token_logprobs"].append(score.logprob)
            columns["top_logprobs"].append(self._likeliest(score))
            columns["text_offset"].append(self._n_characters)
            self._n_characters += len(self._decoder.push(score.token))
        return columns

    def _likeliest(self, score: TokenScore) -> dict[str, float]:
        likeliest = {self._name(score.token): score.logprob}
        for token, logprob in score.top:
            if token != score.token:
                name = self._name(token)
                likeliest[f"token_id:{token}" if name in likeliest else name] = logprob
        return likeliest

    def _name(self, token: int) -> str:
        """A token's text; OpenAI's way to write bytes that are none."""
        data = self.tokenizer.decode_bytes([token])
        try:
            return data.decode("utf-8")
        except UnicodeDecodeError:
            return "bytes:" + "".join(f"\\x{byte:02x}" for byte in data)
