"""The served models and what requests may leave out: where the endpoints get lanes, sampling
parameters and jobs.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

from nanochat.engine import SamplingParams
from nanochat.serve.errors import ApiError, too_long
from nanochat.serve.lane import Job, Lane
from nanochat.serve.metrics import Gauge, Metrics
from nanochat.serve.schema import ChatRequest, CompletionRequest, PageRequest, Sampling
from nanochat.tokenizer.chat_prompt import PromptTooLong, answer_room, fit_messages

DEFAULT_COMPLETION_TOKENS = 16
CACHE_GAUGES = (
    ("pages_used", "nanochat_cache_pages_used", "Cache pages held by running answers."),
    (
        "pages_retained",
        "nanochat_cache_pages_retained",
        "Cache pages kept for prompts that begin alike.",
    ),
    ("pages_total", "nanochat_cache_pages_total", "Cache pages there may be."),
    ("cache_bytes", "nanochat_cache_bytes", "Memory of the cache."),
)


@dataclass(frozen=True)
class Defaults:
    """Sampling for requests that leave it out."""

    temperature: float = 0.8
    top_k: int | None = 50
    max_tokens: int = 512


@dataclass
class Service:
    """Everything behind the endpoints. The first lane answers requests that name no model."""

    lanes: dict[str, Lane]
    metrics: Metrics
    defaults: Defaults = field(default_factory=Defaults)
    drain_s: float = 30.0
    aliases: dict[str, str] = field(default_factory=dict)
    started_s: float = field(default_factory=time.monotonic)
    draining: bool = False

    def start(self) -> None:
        for lane in self.lanes.values():
            lane.start()

    def stop(self) -> None:
        for lane in self.lanes.values():
            lane.stop()

    def lane(self, name: str | None) -> Lane:
        """The lane of a model. ApiError 404 naming those there are."""
        if name is None:
            return next(iter(self.lanes.values()))
        lane = self.lanes.get(self.aliases.get(name, name))
        if lane is None:
            known = ", ".join(self.lanes)
            raise ApiError(
                404,
                f"model={name[:100]!r}: not served here; there is {known}",
                "model",
                "model_not_found",
            )
        return lane

    @property
    def ready(self) -> bool:
        return not self.draining and all(lane.ready for lane in self.lanes.values())

    async def drain(self) -> None:
        """Take nothing new, let running answers finish within `drain_s`, then end them as
        cancelled.
        """
        self.draining = True
        for lane in self.lanes.values():
            lane.drain()
        deadline_s = time.monotonic() + self.drain_s
        while any(lane.running for lane in self.lanes.values()) and time.monotonic() < deadline_s:
            await asyncio.sleep(0.05)
        for lane in self.lanes.values():
            lane.cut_all("the server is shutting down")

    # --- requests to jobs

    def params(self, body: Sampling, max_tokens: int, **more: Any) -> SamplingParams:
        """Sampling parameters of a request. ApiError 400 naming the field that does not fit."""
        with as_api_errors():
            return SamplingParams(
                temperature=(
                    self.defaults.temperature if body.temperature is None else body.temperature
                ),
                top_k=self.defaults.top_k if body.top_k is None else body.top_k,
                top_p=body.top_p,
                min_p=body.min_p,
                seed=None if body.seed is None else body.seed % 2**63,
                max_tokens=max_tokens,
                **more,
            )

    async def chat_job(
        self, lane: Lane, body: PageRequest | ChatRequest, client: str
    ) -> tuple[Job, int]:
        """(job, how many of the oldest turns were left out) for a conversation's next answer."""
        n, more = 1, {}
        max_tokens = body.max_tokens
        if isinstance(body, ChatRequest):
            n = body.n or 1
            max_tokens = (
                max_tokens if body.max_completion_tokens is None else body.max_completion_tokens
            )
            if body.top_logprobs is not None and not body.logprobs:
                raise ApiError(400, "top_logprobs: needs logprobs=true", "top_logprobs")
            scores = (body.top_logprobs or 0) if body.logprobs else None
            more = {"stop": body.stops(), "logprobs": scores, "tools": body.tools_use or "run"}
        params = self.params(
            body, self.defaults.max_tokens if max_tokens is None else max_tokens, **more
        )
        messages = [message.plain() for message in body.messages]
        if isinstance(messages[-1]["content"], str):
            check_size(lane, messages[-1]["content"], "messages")
        room = lane.info.context - answer_room(lane.info.context, params.max_tokens)
        try:  # in a thread: a long text takes a while
            fitted = await asyncio.to_thread(fit_messages, lane.info.tokenizer, messages, room)
        except PromptTooLong as error:
            raise too_long(str(error), "messages") from None
        except ValueError as error:
            raise ApiError(400, str(error), "messages") from None
        return Job(client, [fitted.ids], params, n), fitted.dropped_turns

    async def completion_job(self, lane: Lane, body: CompletionRequest, client: str) -> Job:
        """The job of continuing text or token ids."""
        if body.best_of is not None and body.best_of != (body.n or 1):
            raise ApiError(400, f"best_of={body.best_of}: not supported; leave it out", "best_of")
        if body.echo and body.logprobs is not None:
            raise ApiError(400, "echo: not supported together with logprobs; leave one out", "echo")
        max_tokens = DEFAULT_COMPLETION_TOKENS if body.max_tokens is None else body.max_tokens
        stop, tools = body.stops(), body.tools_use or "run"
        params = self.params(body, max_tokens, stop=stop, logprobs=body.logprobs, tools=tools)
        prompts = await asyncio.to_thread(self._token_prompts, lane, body.prompt)
        for ids in prompts:
            check_prompt(lane, ids)
        return Job(client, prompts, params, body.n or 1)

    def _token_prompts(self, lane: Lane, prompt: Any) -> list[list[int]]:
        many = prompt if isinstance(prompt, list) and not isinstance(prompt[0], int) else [prompt]
        tokenizer = lane.info.tokenizer
        bos = tokenizer.get_bos_token_id()
        for one in many:
            if isinstance(one, str):
                check_size(lane, one, "prompt")
        return [
            tokenizer.encode(one, prepend=bos) if isinstance(one, str) else list(one)
            for one in many
        ]

    # --- numbers

    def gauges(self) -> list[Gauge]:
        """What the server holds at the moment, for `Metrics.text`."""
        lanes = self.lanes.items()

        def per_model(name: str, about: str, value: Callable[[Lane], float]) -> Gauge:
            return name, about, [([("model", model)], value(lane)) for model, lane in lanes]

        rows = [
            per_model("nanochat_queue_length", "Requests waiting.", lambda lane: len(lane.queue)),
            per_model(
                "nanochat_running_answers", "Answers being written.", lambda lane: lane.running
            ),
            per_model("nanochat_ready", "1 when requests are taken.", lambda lane: lane.ready),
        ]
        cache = [
            ([("model", name), ("worker", str(worker.index))], stats)
            for name, lane in lanes
            for worker in lane.workers
            if (stats := worker.stats()) is not None
        ]
        for attribute, name, about in CACHE_GAUGES:
            rows.append(
                (name, about, [(labels, getattr(stats, attribute)) for labels, stats in cache])
            )
        return rows


def check_size(lane: Lane, text: str, param: str) -> None:
    """ApiError 400 for a text that is too long however it is encoded."""
    if len(text) > lane.info.most_bytes:
        what = f"a text of {len(text)} characters, the context holds {lane.info.context} tokens"
        raise too_long(f"{param}: {what}; shorten it", param)


def check_prompt(lane: Lane, ids: list[int]) -> None:
    """ApiError 400 when the model cannot continue these ids."""
    if not ids:
        raise ApiError(400, "prompt: a list of token ids must not be empty", "prompt")
    wrong = next((token for token in ids if not 0 <= token < lane.info.vocab_size), None)
    if wrong is not None:
        last = lane.info.vocab_size - 1
        raise ApiError(
            400, f"prompt: {wrong} is no token id of this model, which has 0 to {last}", "prompt"
        )
    if len(ids) > lane.info.context:
        raise too_long(
            f"prompt: {len(ids)} tokens, the context holds {lane.info.context}; shorten it",
            "prompt",
        )


@contextmanager
def as_api_errors() -> Iterator[None]:
    """ValueErrors of the engine as 400, with the field they begin with as `param`."""
    try:
        yield
    except ValueError as error:
        message = str(error)
        raise ApiError(400, message, message.partition("=")[0] or None, "invalid_value") from None
