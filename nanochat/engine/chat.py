"""Conversations over an engine: what fits the context, and a session that remembers its turns."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

from nanochat.engine.engine import Engine
from nanochat.engine.request import Event
from nanochat.engine.sequence import SamplingParams
from nanochat.tokenizer import Tokenizer
from nanochat.tokenizer.chat import message_problem

ANSWER_SHARE = (
    4  # an answer is left at least a quarter of the context, or its max_tokens if that is less
)


@dataclass(frozen=True)
class FittedPrompt:
    """Ids that ask for the next answer, and how many of the oldest turns (question and answer) had
    to go for that.
    """

    ids: list[int]
    dropped_turns: int


def answer_room(context: int, max_tokens: int | None) -> int:
    """Tokens of the context to keep free for an answer."""
    share = max(1, context // ANSWER_SHARE)
    return share if max_tokens is None else max(1, min(share, max_tokens))


def fit_messages(
    tokenizer: Tokenizer, messages: list[dict[str, Any]], max_prompt_tokens: int
) -> FittedPrompt:
    """Render messages that end with the user's, leaving out the oldest whole turns until they fit.

    A leading system message stays: it is folded into the first turn that is left. The work is
    bounded by what fits, not by the length of the history. ValueError for malformed messages and
    for a last message that is too long by itself.
    """
    if reason := message_problem(messages):
        raise ValueError(f"messages: {reason}")
    if messages[-1]["role"] != "user":
        raise ValueError(
            "messages: the last message must be the user's; that is what gets answered"
        )
    system = [messages[0]] if messages[0]["role"] == "system" else []
    turns = [messages[at : at + 2] for at in range(len(system), len(messages), 2)]

    def rendered(turn: list[dict[str, Any]]) -> list[int]:
        if len(turn) == 1 or turn[-1]["role"] == "user":
            return tokenizer.render_for_completion({"messages": turn})[1:]
        return tokenizer.render_conversation({"messages": turn})[0][1:]

    kept: list[list[int]] = []  # newest first, without the system message
    best: list[int] | None = None
    used = 1
    for turn in reversed(turns):
        first = rendered(system + turn)
        if used + len(first) > max_prompt_tokens:
            break
        best = first
        kept.append(rendered(turn) if system else first)
        used += len(kept[-1])
    if best is None:
        length = 1 + len(rendered(system + turns[-1]))
        room = f"the context has room for {max_prompt_tokens}"
        raise ValueError(f"messages: the last message takes {length} tokens, {room}; shorten it")
    ids = [tokenizer.get_bos_token_id(), *best]
    for later in reversed(kept[:-1]):
        ids += later
    return FittedPrompt(ids, len(turns) - len(kept))


@dataclass
class Turn:
    """One exchange, as the ids the model saw and wrote (so that the next prompt finds them in the
    cache).
    """

    question: list[int]
    answer: list[int] = field(default_factory=list)


class ChatSession:
    """A conversation with a model. `ask` streams the answer; the turns before it are remembered.

    When the context is full the oldest whole turns are forgotten: `dropped_turns` says how many the
    last `ask` dropped.
    """

    def __init__(
        self,
        engine: Engine,
        tokenizer: Tokenizer | None = None,
        params: SamplingParams | None = None,
    ) -> None:
        self.engine, self.tokenizer = engine, tokenizer or engine.tokenizer
        self.params = params or SamplingParams(temperature=0.6, top_k=50)
        self.turns: list[Turn] = []
        self.dropped_turns = 0
        special = self.tokenizer.encode_special
        self._bos = self.tokenizer.get_bos_token_id()
        self._user = special("<|user_start|>"), special("<|user_end|>")
        self._assistant = special("<|assistant_start|>"), special("<|assistant_end|>")

    def clear(self) -> None:
        """Forget the conversation."""
        self.turns.clear()
        self.dropped_turns = 0

    def ask(self, text: str, params: SamplingParams | None = None) -> Iterator[Event]:
        """Stream the answer to `text`. Stopping early keeps what was said so far. ValueError (at
        once) if `text` is too long for the context. Whatever `text` spells, it is never encoded as
        a special token.
        """
        params = params or self.params
        turn = Turn([self._user[0], *self.tokenizer.encode(text), self._user[1]])
        room = self.engine.context - answer_room(self.engine.context, params.max_tokens)
        sizes = [len(t.question) + len(t.answer) + 2 for t in self.turns]
        needed = 1 + len(turn.question) + 1
        if needed > room:
            raise ValueError(
                f"the message takes {needed} tokens, the context has room for {room}; shorten it"
            )
        dropped = 0
        while needed + sum(sizes[dropped:]) > room:
            dropped += 1
        self.turns, self.dropped_turns = self.turns[dropped:], dropped
        return self._answer(turn, params)

    def _prompt(self, turn: Turn) -> list[int]:
        ids = [self._bos]
        for past in self.turns:
            ids += [*past.question, self._assistant[0], *past.answer, self._assistant[1]]
        return [*ids, *turn.question, self._assistant[0]]

    def _answer(self, turn: Turn, params: SamplingParams) -> Iterator[Event]:
        request = self.engine.submit(self._prompt(turn), params)
        try:
            yield from self.engine.stream(request)
        finally:
            sequence = request.samples[0].sequence
            answer = sequence.tokens[sequence.n_prompt :]
            if answer and self.engine.special.ends(answer[-1]):
                answer = answer[:-1]
            if answer:  # an answer stopped before it began leaves no turn behind
                self.turns.append(Turn(turn.question, answer))
