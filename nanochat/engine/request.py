"""A request and what comes out of it: events while it runs, completions at the end."""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass, field, replace

from nanochat.engine.output import AnswerText, Piece
from nanochat.engine.sampler import Sampled
from nanochat.engine.sequence import FinishReason, SamplingParams, Sequence, sample_seed
from nanochat.engine.special import SpecialIds
from nanochat.engine.tools import CalculatorCalls
from nanochat.tokenizer import Tokenizer


@dataclass(frozen=True)
class Event:
    """One token of one sample, or its end, or both.

    `token` None: the sample ended without one (cancelled, or nothing was to be generated). `mask`
    1: the model chose the token, 0: a tool forced it. `pieces` is the text that became certain with
    it. The last event of a sample has `finish_reason` and, where a person would ask why,
    `finish_detail`.
    """

    request: Request
    sample: int
    token: int | None
    mask: int
    pieces: tuple[Piece, ...] = ()
    logprob: float | None = None
    top: tuple[tuple[int, float], ...] = ()
    finish_reason: FinishReason | None = None
    finish_detail: str = ""

    @property
    def text(self) -> str:
        """What the answer says, without tool calls and their results."""
        return "".join(piece.text for piece in self.pieces if piece.kind == "text")


@dataclass(frozen=True)
class Completion:
    """A finished sample: its generated tokens without the prompt and without the special token that
    ended it.

    `mask` 1 = chosen by the model, 0 = forced by a tool; `logprobs` per token when asked for (None
    for forced ones); `stop_token` the special token that ended the answer; `text` what the answer
    says, without tool calls.
    """

    ids: list[int]
    mask: list[int]
    finish_reason: FinishReason
    finish_detail: str = ""
    text: str = ""
    stop_token: int | None = None
    logprobs: list[float | None] = field(default_factory=list)


@dataclass(eq=False)
class Sample:
    """One of a request's answers in the making: its sequence with the state machines that follow
    it.
    """

    index: int
    sequence: Sequence
    text: AnswerText
    calls: CalculatorCalls
    mask: list[int] = field(default_factory=list)
    logprobs: list[float | None] = field(default_factory=list)
    shown: list[str] = field(default_factory=list)


@dataclass(eq=False)
class Request:
    """A prompt submitted to the engine, with `n` samples to be drawn. `events` holds what nobody
    has taken yet.
    """

    id: int
    prompt: list[int]
    params: SamplingParams
    samples: list[Sample] = field(default_factory=list)
    events: deque[Event] = field(default_factory=deque)
    cancelled: bool = False

    @classmethod
    def create(
        cls,
        request_id: int,
        prompt: list[int],
        params: SamplingParams,
        n: int,
        tokenizer: Tokenizer,
        special: SpecialIds,
    ) -> Request:
        request = cls(request_id, prompt, params)
        for index in range(n):
            own = replace(params, seed=sample_seed(params.seed, index))
            sequence = Sequence(index, list(prompt), own)
            text, calls = (
                AnswerText(tokenizer, special, params.stop),
                CalculatorCalls(tokenizer, special),
            )
            request.samples.append(Sample(index, sequence, text, calls))
        return request

    @property
    def finished(self) -> bool:
        return all(sample.sequence.finished for sample in self.samples)

    @property
    def n_reused(self) -> int:
        """Prompt tokens that came from the cache (of the first sample)."""
        return self.samples[0].sequence.n_reused

    def completions(self, special: SpecialIds) -> list[Completion]:
        """The finished samples, in order."""
        return [completion_of(sample, special) for sample in self.samples]


def completion_of(sample: Sample, special: SpecialIds) -> Completion:
    sequence = sample.sequence
    assert sequence.finish_reason is not None, "the sample is still running"
    ids, mask, logprobs = sequence.tokens[sequence.n_prompt :], sample.mask, sample.logprobs
    ended = sequence.finish_reason == "stop" and ids and mask[-1] and special.ends(ids[-1])
    stop_token = ids[-1] if ended else None
    if stop_token is not None:
        ids, mask, logprobs = ids[:-1], mask[:-1], logprobs[:-1]
    text = "".join(sample.shown)
    return Completion(
        ids,
        mask,
        sequence.finish_reason,
        sequence.finish_detail,
        text,
        stop_token,
        logprobs if sequence.params.logprobs is not None else [],
    )


def advance(
    request: Request, sample: Sample, drawn: Sampled, special: SpecialIds, context: int
) -> list[Event]:
    """Append a drawn token, and whatever a tool answers to it, to the sample; the events this
    makes.
    """
    params = sample.sequence.params
    events = [append(request, sample, drawn, 1, special, context)]
    if params.tools != "run":
        return events
    for token in sample.calls.push(drawn.token):
        if not sample.sequence.finished:
            events.append(append(request, sample, Sampled(token), 0, special, context))
    return events


def append(
    request: Request, sample: Sample, drawn: Sampled, mask: int, special: SpecialIds, context: int
) -> Event:
    """One more token at the end of the sample, with the verdict whether it was the last one."""
    sequence = sample.sequence
    sequence.tokens.append(drawn.token)
    sample.mask.append(mask)
    sample.logprobs.append(drawn.logprob)
    ends = bool(mask) and special.ends(drawn.token) and not sequence.params.ignore_end
    pieces = [] if ends else sample.text.push(drawn.token)
    if ends or sample.text.stopped_by is not None:
        sequence.finish("stop")
    elif sequence.params.tools == "return" and drawn.token == special.python_end:
        sequence.finish("tool", "the answer calls a tool")
    elif (
        sequence.params.max_tokens is not None
        and sequence.n_generated >= sequence.params.max_tokens
    ):
        sequence.finish("length", f"max_tokens={sequence.params.max_tokens} reached")
    elif len(sequence.tokens) > context:
        sequence.finish("length", f"the context of {context} tokens is full")
    if sequence.finished:
        pieces = [*pieces, *sample.text.flush()]
    sample.shown.extend(piece.text for piece in pieces if piece.kind == "text")
    return Event(
        request,
        sample.index,
        drawn.token,
        mask,
        tuple(pieces),
        drawn.logprob,
        drawn.top,
        sequence.finish_reason,
        sequence.finish_detail,
    )


def closing_event(request: Request, sample: Sample) -> Event:
    """The end of a sample that no token brought."""
    pieces = tuple(sample.text.flush())
    sample.shown.extend(piece.text for piece in pieces if piece.kind == "text")
    sequence = sample.sequence
    return Event(
        request,
        sample.index,
        None,
        0,
        pieces,
        finish_reason=sequence.finish_reason,
        finish_detail=sequence.finish_detail,
    )
