"""One answer in the making: its sequence, and the state machines that follow its tokens."""

from __future__ import annotations

from nanochat.engine.event import Event, TokenScore
from nanochat.engine.sampler import Sampled
from nanochat.engine.sequence import FinishReason, Sequence
from nanochat.engine.tools import CalculatorCalls
from nanochat.tokenizer import Tokenizer
from nanochat.tokenizer.special_tokens import SpecialIds
from nanochat.tokenizer.stream import AnswerText, Piece


class Sample:
    """Turns the tokens drawn for one of a request's sequences into events, and decides which is the
    last.
    """

    def __init__(
        self,
        sequence: Sequence,
        *,
        request: int,
        tokenizer: Tokenizer,
        special: SpecialIds,
        context: int,
    ) -> None:
        self.sequence = sequence
        self.request = request
        self.mask: list[int] = []
        self.logprobs: list[float | None] = []
        self.shown: list[str] = []
        self.ended_by_token = False
        self._special = special
        self._context = context
        self._text = AnswerText(tokenizer, sequence.params.stop)
        self._calls = CalculatorCalls(tokenizer, special)

    def advance(self, drawn: Sampled) -> list[Event]:
        """Append a drawn token, and whatever a tool answers to it; the events this makes."""
        events = [self._append(drawn, 1)]
        if self.sequence.params.tools != "run":
            return events
        for token in self._calls.push(drawn.token):
            if not self.sequence.finished:
                events.append(self._append(Sampled(token), 0))
        return events

    def close(self, reason: FinishReason, detail: str) -> Event:
        """End the sample without a token."""
        self.sequence.finish(reason, detail)
        return self._event(None, 0, [])

    def _append(self, drawn: Sampled, mask: int) -> Event:
        """One more token at the end, with the verdict whether it was the last one."""
        sequence, params = self.sequence, self.sequence.params
        sequence.tokens.append(drawn.token)
        self.mask.append(mask)
        self.logprobs.append(drawn.logprob)
        ends = bool(mask) and self._special.ends(drawn.token) and not params.ignore_end
        score = None
        if drawn.logprob is not None:
            score = TokenScore(drawn.token, drawn.logprob, drawn.top)
        pieces = [] if ends else self._text.push(drawn.token, score)
        if ends or self._text.stopped_by is not None:
            self.ended_by_token = ends
            sequence.finish("stop")
        elif params.tools == "return" and drawn.token == self._special.python_end:
            sequence.finish("tool", "the answer calls a tool")
        elif params.max_tokens is not None and sequence.n_generated >= params.max_tokens:
            sequence.finish("length", f"max_tokens={params.max_tokens} reached")
        elif len(sequence.tokens) > self._context:
            sequence.finish("length", f"the context of {self._context} tokens is full")
        return self._event(drawn.token, mask, pieces)

    def _event(self, token: int | None, mask: int, pieces: list[Piece]) -> Event:
        sequence = self.sequence
        if sequence.finished:
            pieces = [*pieces, *self._text.flush()]
        self.shown.extend(piece.text for piece in pieces if piece.kind == "text")
        return Event(
            request=self.request,
            sample=sequence.id,
            token=token,
            mask=mask,
            pieces=tuple(pieces),
            scores=tuple(self._text.scores()),
            reused=sequence.n_reused,
            finish_reason=sequence.finish_reason,
            finish_detail=sequence.finish_detail,
        )
