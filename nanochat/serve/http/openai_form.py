"""The answers to one request in the form that OpenAI's clients read, whole or as a stream.

What the form has no place for is in an object `nanochat` at the top of a body or chunk, where
clients leave it alone: `dropped_turns` (oldest turns that did not fit the context), `finish_detail`
(why an answer ended, where that is worth saying) and, in a stream, `parts` (what the calculator was
asked and said).
"""

from __future__ import annotations

import secrets
import time
from collections.abc import AsyncIterator
from typing import Any

from nanochat.engine import Event
from nanochat.serve.api_error import ApiError
from nanochat.serve.http.answer import Answer, CompletionLogprobs, chat_logprobs, tool_parts
from nanochat.serve.http.error_response import error_body
from nanochat.serve.http.event_stream import sse
from nanochat.serve.http.schema import ChatRequest, CompletionRequest, OpenAIRequest
from nanochat.serve.work.job import Job
from nanochat.serve.work.served_model import ServedModel

DROPPED_HEADER = "X-Nanochat-Dropped-Turns"
DONE = "data: [DONE]\n\n"
FINISH_REASONS = {"tool": "stop"}  # one of ours that OpenAI does not have


class OpenAIAnswers:
    """What both endpoints have in common."""

    prefix = ""
    whole_object = ""
    chunk_object = ""

    def __init__(
        self, model: ServedModel, job: Job, body: OpenAIRequest, dropped_turns: int = 0
    ) -> None:
        self.model = model
        self.job = job
        self.body = body
        self.dropped_turns = dropped_turns
        self.tokenizer = model.card.tokenizer
        self.answers = [Answer() for _ in range(job.n_answers)]
        self.envelope = {
            "id": f"{self.prefix}-{secrets.token_hex(12)}",
            "created": int(time.time()),
            "model": model.card.name,
        }
        options = body.stream_options
        self.wants_usage = options is not None and bool(options.include_usage)

    @property
    def headers(self) -> dict[str, str]:
        return {DROPPED_HEADER: str(self.dropped_turns)} if self.dropped_turns else {}

    async def whole(self) -> dict[str, Any]:
        """One body with all answers. ApiError when the engine failed."""
        async for index, event in self.job.events():
            self.answers[index].add(event)
        choices = [
            {**self.choice(index, answer), "finish_reason": openai_reason(answer.finish_reason)}
            for index, answer in enumerate(self.answers)
        ]
        body = {"object": self.whole_object, **self.envelope, "choices": choices}
        about = self.dropped()
        details = [answer.finish_detail for answer in self.answers]
        if any(details):
            about["finish_detail"] = details[0] if len(details) == 1 else details
        return {**body, "usage": self.usage(), **({"nanochat": about} if about else {})}

    async def stream(self) -> AsyncIterator[str]:
        """Events, one for each piece that shows; an error is told in one of them."""
        for chunk in self.opening():
            yield sse(chunk)
        try:
            async for index, event in self.job.events():
                self.answers[index].add(event)
                if event.pieces or event.scores or event.finish_reason:
                    yield sse(self.chunk(index, event))
            if self.wants_usage:
                yield sse({**self.chunk_envelope, "choices": [], "usage": self.usage()})
        except ApiError as error:
            yield sse(error_body(error))
        yield DONE

    @property
    def chunk_envelope(self) -> dict[str, Any]:
        return {"object": self.chunk_object, **self.envelope}

    def chunk(self, index: int, event: Event) -> dict[str, Any]:
        """What an event adds to an answer."""
        about: dict[str, Any] = {}
        if event.finish_detail:
            about["finish_detail"] = event.finish_detail
        if parts := tool_parts(event):
            about["parts"] = parts
        choice = self.chunk_choice(index, event)
        return self.framed({**choice, "finish_reason": openai_reason(event.finish_reason)}, about)

    def framed(self, choice: dict[str, Any], about: dict[str, Any]) -> dict[str, Any]:
        """A chunk with one choice."""
        chunk = {**self.chunk_envelope, "choices": [choice]}
        if self.wants_usage:
            chunk["usage"] = None
        return {**chunk, "nanochat": about} if about else chunk

    def dropped(self) -> dict[str, Any]:
        return {"dropped_turns": self.dropped_turns} if self.dropped_turns else {}

    def usage(self) -> dict[str, Any]:
        prompt, written = self.job.prompt_tokens, self.job.completion_tokens
        cached = sum(answer.n_reused for answer in self.answers[:: self.job.n])
        return {
            "prompt_tokens": prompt,
            "completion_tokens": written,
            "total_tokens": prompt + written,
            "prompt_tokens_details": {"cached_tokens": cached},
        }

    def opening(self) -> list[dict[str, Any]]:
        """Chunks before the first event."""
        raise NotImplementedError

    def choice(self, index: int, answer: Answer) -> dict[str, Any]:
        raise NotImplementedError

    def chunk_choice(self, index: int, event: Event) -> dict[str, Any]:
        raise NotImplementedError


class ChatAnswers(OpenAIAnswers):
    """Chat completions. A whole message whose answer used the calculator also has its `parts`."""

    body: ChatRequest
    prefix = "chatcmpl"
    whole_object = "chat.completion"
    chunk_object = "chat.completion.chunk"

    def opening(self) -> list[dict[str, Any]]:
        blank = {
            "delta": {"role": "assistant", "content": ""},
            "logprobs": None,
            "finish_reason": None,
        }
        return [
            self.framed({"index": index, **blank}, self.dropped())
            for index in range(len(self.answers))
        ]

    def choice(self, index: int, answer: Answer) -> dict[str, Any]:
        message: dict[str, Any] = {"role": "assistant", "content": answer.text, "refusal": None}
        if answer.used_tool:
            message["parts"] = answer.parts
        scores = chat_logprobs(self.tokenizer, answer.scores) if self.body.logprobs else None
        return {"index": index, "message": message, "logprobs": scores}

    def chunk_choice(self, index: int, event: Event) -> dict[str, Any]:
        delta = {"content": event.text} if event.text else {}
        scores = chat_logprobs(self.tokenizer, event.scores) if event.scores else None
        return {"index": index, "delta": delta, "logprobs": scores}


class TextAnswers(OpenAIAnswers):
    """Completions: the choices of the first prompt come first."""

    body: CompletionRequest
    prefix = "cmpl"
    whole_object = "text_completion"
    chunk_object = "text_completion"

    def __init__(self, model: ServedModel, job: Job, body: CompletionRequest) -> None:
        super().__init__(model, job, body)
        self.logprobs = [CompletionLogprobs(self.tokenizer) for _ in self.answers]

    def prompt_text(self, index: int) -> str:
        """What `echo` puts before the answer."""
        ids = self.job.prompts[index // self.job.n]
        assert isinstance(ids, list), "echo is refused for another server's models"
        bos = self.tokenizer.get_bos_token_id()
        return self.tokenizer.decode(ids[1:] if ids[0] == bos else ids)

    def opening(self) -> list[dict[str, Any]]:
        if not self.body.echo:
            return []
        blank = {"logprobs": None, "finish_reason": None}
        return [
            self.framed({"index": index, "text": self.prompt_text(index), **blank}, {})
            for index in range(len(self.answers))
        ]

    def choice(self, index: int, answer: Answer) -> dict[str, Any]:
        text = self.prompt_text(index) + answer.text if self.body.echo else answer.text
        wanted = self.body.logprobs is not None
        scores = self.logprobs[index].of(answer.scores) if wanted else None
        return {"index": index, "text": text, "logprobs": scores}

    def chunk_choice(self, index: int, event: Event) -> dict[str, Any]:
        scores = self.logprobs[index].of(event.scores) if event.scores else None
        return {"index": index, "text": event.text, "logprobs": scores}


def openai_reason(reason: str | None) -> str | None:
    return None if reason is None else FINISH_REASONS.get(reason, reason)
