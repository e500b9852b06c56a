"""A prompt on its way through the engine, and what is left when it is through."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass, field

from nanochat.engine.event import Event
from nanochat.engine.sample import Sample
from nanochat.engine.sequence import FinishReason, SamplingParams
from nanochat.tokenizer.chat_prompt import PromptTooLong


@dataclass(eq=False, kw_only=True)
class Request:
    """A prompt and the samples being drawn for it, as `Engine.submit` returns it. `deliver`: where
    its events go, when not to whoever calls `step`.
    """

    id: int
    prompt: list[int]
    params: SamplingParams
    samples: list[Sample]
    deliver: Callable[[Event], None] | None = None

    @property
    def finished(self) -> bool:
        return all(sample.sequence.finished for sample in self.samples)

    def completions(self) -> list[Completion]:
        """The finished samples, in order."""
        return [completion_of(sample) for sample in self.samples]


def checked_prompt(tokens: Iterable[int], context: int, vocab_size: int) -> list[int]:
    """The tokens as a list. ValueError when the model cannot continue them, PromptTooLong when
    there are too many.
    """
    prompt = list(tokens)
    if not prompt:
        raise ValueError("tokens=[]: a prompt needs at least one token; begin with the bos token")
    if len(prompt) > context:
        raise PromptTooLong(
            f"tokens: the prompt has {len(prompt)} tokens, the context holds {context}; cut it"
        )
    for token in prompt:
        if not isinstance(token, int) or not 0 <= token < vocab_size:
            raise ValueError(
                f"tokens: {token!r} is no token id of this model, which has ids 0 to "
                f"{vocab_size - 1}"
            )
    return prompt


@dataclass(frozen=True, kw_only=True)
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


def completion_of(sample: Sample) -> Completion:
    sequence = sample.sequence
    assert sequence.finish_reason is not None, "the sample is still running"
    ids = sequence.tokens[sequence.n_prompt :]
    kept = len(ids) - sample.ended_by_token
    return Completion(
        ids=ids[:kept],
        mask=sample.mask[:kept],
        finish_reason=sequence.finish_reason,
        finish_detail=sequence.finish_detail,
        text="".join(sample.shown),
        stop_token=ids[-1] if sample.ended_by_token else None,
        logprobs=sample.logprobs[:kept] if sequence.params.logprobs is not None else [],
    )
