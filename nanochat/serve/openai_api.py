"""The OpenAI-compatible endpoints: /v1/models, /v1/chat/completions, /v1/completions.

What OpenAI's form has no place for is in an object `nanochat`: `dropped_turns` (oldest turns that
did not fit the context) and `finish_detail` (why an answer ended, where that is worth saying).
"""

from __future__ import annotations

import secrets
import time
from collections.abc import AsyncIterator, Callable
from functools import partial
from typing import Any

from fastapi import APIRouter
from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from nanochat.serve.answer import Answer, Delta, chat_logprobs, completion_logprobs
from nanochat.serve.errors import ApiError
from nanochat.serve.lane import Job, Lane
from nanochat.serve.schema import ChatRequest, CompletionRequest, OpenAIRequest, validated
from nanochat.serve.service import Service
from nanochat.serve.wire import EventStream, event, read_json, unless_gone

DROPPED_HEADER = "X-Nanochat-Dropped-Turns"


def router(service: Service, body_of: Callable[[Any], dict[str, Any]]) -> APIRouter:
    """The routes. `body_of` describes a request body for the OpenAPI document."""
    routes = APIRouter(prefix="/v1", tags=["OpenAI"])

    @routes.get("/models", summary="The models served here")
    async def models() -> Response:
        return JSONResponse(
            {"object": "list", "data": [model_card(lane) for lane in service.lanes.values()]}
        )

    @routes.get("/models/{name}", summary="One of them")
    async def model(name: str) -> Response:
        return JSONResponse(model_card(service.lane(name)))

    @routes.post(
        "/chat/completions", summary="Answer a conversation", openapi_extra=body_of(ChatRequest)
    )
    async def chat_completions(request: Request) -> Response:
        body = validated(ChatRequest, await read_json(request))
        check_stream_options(body)
        lane = service.lane(body.model)
        job, dropped = await service.chat_job(lane, body, request.state.client)
        return await respond(ChatReply(lane, job, body, dropped), request)

    @routes.post(
        "/completions", summary="Continue a text", openapi_extra=body_of(CompletionRequest)
    )
    async def completions(request: Request) -> Response:
        body = validated(CompletionRequest, await read_json(request))
        check_stream_options(body)
        lane = service.lane(body.model)
        job = await service.completion_job(lane, body, request.state.client)
        return await respond(TextReply(lane, job, body), request)

    return routes


def model_card(lane: Lane) -> dict[str, Any]:
    info = lane.info
    card = {"id": info.name, "object": "model", "created": info.created, "owned_by": "nanochat"}
    return {**card, "context_length": info.context, "step": info.step}


def check_stream_options(body: OpenAIRequest) -> None:
    if body.stream_options is not None and not body.stream:
        raise ApiError(400, "stream_options: only together with stream=true", "stream_options")


async def respond(reply: Reply, request: Request) -> Response:
    """Wait for the job's turn, then the whole answer or the stream of its pieces."""
    lane, job = reply.lane, reply.job
    await unless_gone(lane.admit(job), request.receive)
    close = partial(lane.abandon, job)
    if reply.body.stream:
        return EventStream(reply.stream(), close, reply.headers)
    try:
        await unless_gone(reply.collect(), request.receive)
    finally:
        close()
    return JSONResponse(reply.whole(), headers=reply.headers)


class Reply:
    """The answers to one request, and the form they are sent in."""

    prefix, whole_object, chunk_object = "", "", ""

    def __init__(self, lane: Lane, job: Job, body: Any, dropped_turns: int = 0) -> None:
        self.lane, self.job, self.body, self.dropped_turns = lane, job, body, dropped_turns
        self.tokenizer = lane.info.tokenizer
        self.id, self.created = f"{self.prefix}-{secrets.token_hex(12)}", int(time.time())
        self.answers = [Answer(self.tokenizer) for _ in range(job.cost)]

    @property
    def headers(self) -> dict[str, str]:
        return {DROPPED_HEADER: str(self.dropped_turns)} if self.dropped_turns else {}

    async def collect(self) -> None:
        """Take in everything. ApiError 500 when the engine failed."""
        async for update in self.job.events():
            self.answers[update.sample].add(update)
        failed = next((answer for answer in self.answers if answer.finish_reason == "error"), None)
        if failed is not None:
            raise ApiError(500, failed.finish_detail or "the engine failed", code="engine_error")

    async def stream(self) -> AsyncIterator[str]:
        for text in self.opening():
            yield text
        async for update in self.job.events():
            answer = self.answers[update.sample]
            before = len(answer.text) if self.body.logprobs is not None else 0
            delta = answer.add(update)
            if delta.finish_reason == "error":
                yield event(
                    ApiError(
                        500, delta.finish_detail or "the engine failed", code="engine_error"
                    ).body
                )
                break
            if delta.shows or delta.scores:
                yield event(self.chunk(update.sample, delta, before))
        else:
            if self.wants_usage:
                yield event(
                    {**self.envelope(self.chunk_object), "choices": [], "usage": self.usage()}
                )
        yield "data: [DONE]\n\n"

    @property
    def wants_usage(self) -> bool:
        options = self.body.stream_options
        return options is not None and bool(options.include_usage)

    def opening(self) -> list[str]:
        return []

    def envelope(self, kind: str) -> dict[str, Any]:
        return {
            "id": self.id,
            "object": kind,
            "created": self.created,
            "model": self.lane.info.name,
        }

    def framed(self, choice: dict[str, Any], **about: Any) -> dict[str, Any]:
        """A chunk with one choice."""
        chunk = {**self.envelope(self.chunk_object), "choices": [choice]}
        if self.wants_usage:
            chunk["usage"] = None
        return {**chunk, "nanochat": about} if about else chunk

    def chunk(self, index: int, delta: Delta, before: int) -> dict[str, Any]:
        choice = self.chunk_choice(index, delta, before)
        about = {"finish_detail": delta.finish_detail} if delta.finish_detail else {}
        return self.framed({**choice, "finish_reason": delta.finish_reason}, **about)

    def whole(self) -> dict[str, Any]:
        choices = [
            {**self.choice(index, answer), "finish_reason": answer.finish_reason}
            for index, answer in enumerate(self.answers)
        ]
        result = {**self.envelope(self.whole_object), "choices": choices, "usage": self.usage()}
        details = [answer.finish_detail for answer in self.answers]
        about: dict[str, Any] = {"dropped_turns": self.dropped_turns} if self.dropped_turns else {}
        if any(details):
            about["finish_detail"] = details[0] if len(details) == 1 else details
        return {**result, "nanochat": about} if about else result

    def usage(self) -> dict[str, Any]:
        prompt, written = (
            sum(map(len, self.job.prompts)),
            sum(answer.n_tokens for answer in self.answers),
        )
        usage = {
            "prompt_tokens": prompt,
            "completion_tokens": written,
            "total_tokens": prompt + written,
        }
        cached = sum(answer.n_reused for answer in self.answers[:: self.job.n])
        return {**usage, "prompt_tokens_details": {"cached_tokens": cached}}

    def choice(self, index: int, answer: Answer) -> dict[str, Any]:
        raise NotImplementedError

    def chunk_choice(self, index: int, delta: Delta, before: int) -> dict[str, Any]:
        raise NotImplementedError


class ChatReply(Reply):
    """Chat completions. A message whose answer used the calculator also has its `parts`."""

    prefix, whole_object, chunk_object = "chatcmpl", "chat.completion", "chat.completion.chunk"

    def opening(self) -> list[str]:
        about = {"dropped_turns": self.dropped_turns} if self.dropped_turns else {}
        delta = {"role": "assistant", "content": ""}
        return [
            event(
                self.framed(
                    {"index": index, "delta": delta, "logprobs": None, "finish_reason": None},
                    **about,
                )
            )
            for index in range(len(self.answers))
        ]

    def choice(self, index: int, answer: Answer) -> dict[str, Any]:
        message: dict[str, Any] = {"role": "assistant", "content": answer.text, "refusal": None}
        if answer.used_tool:
            message["parts"] = answer.parts
        scores = chat_logprobs(self.tokenizer, answer.scores) if self.body.logprobs else None
        return {"index": index, "message": message, "logprobs": scores}

    def chunk_choice(self, index: int, delta: Delta, before: int) -> dict[str, Any]:
        said: dict[str, Any] = {"content": delta.text} if delta.text else {}
        if delta.parts:
            said["parts"] = delta.parts
        scores = (
            chat_logprobs(self.tokenizer, delta.scores)
            if self.body.logprobs and delta.scores
            else None
        )
        return {"index": index, "delta": said, "logprobs": scores}


class TextReply(Reply):
    """Completions: the choices of the first prompt come first."""

    prefix, whole_object, chunk_object = "cmpl", "text_completion", "text_completion"

    def prompt_text(self, index: int) -> str:
        """What `echo` puts before the answer."""
        ids = self.job.prompts[index // self.job.n]
        bos = self.tokenizer.get_bos_token_id()
        return self.tokenizer.decode(ids[1:] if ids[0] == bos else ids)

    def opening(self) -> list[str]:
        if not self.body.echo:
            return []
        blank = {"logprobs": None, "finish_reason": None}
        return [
            event(self.framed({"index": index, "text": self.prompt_text(index), **blank}))
            for index in range(len(self.answers))
        ]

    def choice(self, index: int, answer: Answer) -> dict[str, Any]:
        text = self.prompt_text(index) + answer.text if self.body.echo else answer.text
        wanted = self.body.logprobs is not None
        scores = completion_logprobs(self.tokenizer, answer.scores, 0) if wanted else None
        return {"index": index, "text": text, "logprobs": scores}

    def chunk_choice(self, index: int, delta: Delta, before: int) -> dict[str, Any]:
        wanted = self.body.logprobs is not None and delta.scores
        scores = completion_logprobs(self.tokenizer, delta.scores, before) if wanted else None
        return {"index": index, "text": delta.text, "logprobs": scores}
