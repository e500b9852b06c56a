"""A worker whose engine is another server's: it asks, reads the stream, and tells how it ended."""

from __future__ import annotations

import asyncio
import json
import logging
from collections.abc import AsyncIterator, Callable
from typing import Any

from nanochat.engine import EngineStats, SamplingParams
from nanochat.engine.sequence import FinishReason
from nanochat.serve.api_error import ApiError
from nanochat.serve.work.remote import RemotePrompt
from nanochat.serve.work.upstream import Upstream, imported_httpx
from nanochat.serve.work.upstream_failure import broken, refused, unreachable
from nanochat.serve.work.upstream_reply import UpstreamReply, lines_of
from nanochat.serve.work.worker import Deliver, Lost

log = logging.getLogger(__name__)


class UpstreamWorker:
    """A worker whose engine is another server's. It lives in the event loop it is started in."""

    def __init__(
        self,
        upstream: Upstream,
        model: str,
        count_failure: Callable[[int], None] = lambda status: None,
        index: int = 0,
    ) -> None:
        self.upstream = upstream
        self.model = model
        self.count_failure = count_failure
        self.index = index
        self._deliver: Deliver | None = None
        self._tasks: dict[int, asyncio.Task[None]] = {}
        self._endings: dict[int, tuple[FinishReason, str]] = {}

    def start(self, deliver: Deliver, lost: Lost) -> None:
        self._deliver = deliver

    @property
    def alive(self) -> bool:
        """Always: while the other server is away, requests are told so at once."""
        return self._deliver is not None

    def submit(
        self, request: int, prompt: list[int] | RemotePrompt, params: SamplingParams, n: int
    ) -> None:
        assert isinstance(prompt, RemotePrompt)
        task = asyncio.get_running_loop().create_task(self._answer(request, prompt, n))
        self._tasks[request] = task
        task.add_done_callback(lambda _: self._tasks.pop(request, None))

    def cancel(self, request: int, reason: FinishReason, detail: str) -> None:
        if (task := self._tasks.get(request)) is not None and request not in self._endings:
            self._endings[request] = (reason, detail)
            task.cancel()

    def stats(self) -> EngineStats | None:
        return None

    def stop(self) -> None:
        for task in self._tasks.values():
            task.cancel()

    async def _answer(self, request: int, prompt: RemotePrompt, n: int) -> None:
        """Ask, deliver what comes, and end every sample exactly once, whatever happens."""
        assert self._deliver is not None
        reply = UpstreamReply(request=request, n=n)
        failure = None
        try:
            async for data in self._asked(prompt, n):
                if events := reply.take(data):
                    self._deliver(events)
            reply.check_complete()
        except asyncio.CancelledError:
            default: tuple[FinishReason, str] = ("cancelled", "the server stops")
            reply.end_all(*self._endings.get(request, default))
        except ApiError as error:
            failure = error
        except Exception as error:
            if not isinstance(error, imported_httpx().HTTPError):
                log.exception("upstream: the answer of %s could not be read", self.model)
            failure = unreachable(error)
        if failure is not None:
            log.error("upstream: %s: %d %s", self.model, failure.status, failure.code)
            self.count_failure(failure.status)
            reply.end_all("error", failure.message)
        self._endings.pop(request, None)
        self._deliver(reply.last_events(failure))

    async def _asked(self, prompt: RemotePrompt, n: int) -> AsyncIterator[dict[str, Any]]:
        """The data of its events. ApiError where it refuses or stops making sense."""
        body = {
            **prompt.body,
            "model": self.model,
            "stream": True,
            "stream_options": {"include_usage": True},
            **({"n": n} if n > 1 else {}),
        }
        url = f"{self.upstream.url}/{prompt.path}"
        async with self.upstream.client().stream("POST", url, json=body) as answer:
            if answer.status_code != 200:
                raise refused(
                    answer.status_code,
                    await answer.aread(),
                    answer.headers.get("retry-after", ""),
                )
            async for line in lines_of(answer.aiter_bytes()):
                if not line.startswith(b"data:"):
                    continue
                text = line[5:].strip()
                if text == b"[DONE]":
                    return
                try:
                    data = json.loads(text)
                except ValueError:
                    data = None
                if not isinstance(data, dict):
                    raise broken("an event that is not JSON")
                if "error" in data:
                    raise refused(500, text, "")
                yield data
