"""A conversation over an engine that remembers its turns."""

from __future__ import annotations

from collections.abc import Generator
from dataclasses import dataclass, field

from nanochat.engine.engine import Engine
from nanochat.engine.event import Event
from nanochat.engine.sequence import SamplingParams
from nanochat.tokenizer import Tokenizer
from nanochat.tokenizer.chat_format import user_ids
from nanochat.tokenizer.chat_prompt import answer_room
from nanochat.tokenizer.special_tokens import ASSISTANT_END, ASSISTANT_START


@dataclass
class Exchange:
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
        self.engine = engine
        self.tokenizer = tokenizer or engine.tokenizer
        self.params = params or SamplingParams(temperature=0.6, top_k=50)
        self.turns: list[Exchange] = []
        self.dropped_turns = 0
        self._bos = self.tokenizer.get_bos_token_id()
        self._begins = self.tokenizer.encode_special(ASSISTANT_START)
        self._ends = self.tokenizer.encode_special(ASSISTANT_END)

    def clear(self) -> None:
        """Forget the conversation."""
        self.turns.clear()
        self.dropped_turns = 0

    def ask(self, text: str, params: SamplingParams | None = None) -> Generator[Event, None, None]:
        """Stream the answer to `text`. Stopping early keeps what was said so far. ValueError (at
        once) if `text` is too long for the context. Whatever `text` spells, it is never encoded as
        a special token.
        """
        params = params or self.params
        turn = Exchange(user_ids(self.tokenizer, text))
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
        return self._answer(turn, self.engine.stream(self._prompt(turn), params))

    def _prompt(self, turn: Exchange) -> list[int]:
        ids = [self._bos]
        for past in self.turns:
            ids += [*past.question, self._begins, *past.answer, self._ends]
        return [*ids, *turn.question, self._begins]

    def _answer(
        self, turn: Exchange, events: Generator[Event, None, None]
    ) -> Generator[Event, None, None]:
        try:
            for event in events:
                ends = event.finish_reason == "stop" and event.token in (self._ends, self._bos)
                if event.token is not None and not ends:
                    turn.answer.append(event.token)
                yield event
        finally:
            events.close()
            if turn.answer:  # an answer stopped before it began leaves no turn behind
                self.turns.append(turn)
