"""Bytes in, bytes out: reading a JSON body within limits, and a stream of events that notices when
nobody reads it.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from typing import Any, TypeVar

from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from nanochat.serve.errors import ApiError

MAX_BODY_BYTES = 4 << 20
DRAIN_BYTES = (
    64 << 20
)  # of a body that is too large: read and thrown away, so that its sender gets to see the answer
BODY_TIME_S = 30.0
SEND_TIME_S = 30.0

T = TypeVar("T")


async def read_json(request: Request) -> Any:
    """The body as JSON. ApiError 413 (too large), 408 (too slow), 400 (not UTF-8, not JSON, NaN,
    nested too deep).
    """
    try:
        body = await asyncio.wait_for(_read_body(request), BODY_TIME_S)
    except asyncio.TimeoutError:
        raise ApiError(
            408, f"the body did not arrive within {BODY_TIME_S:.0f} s", code="timeout"
        ) from None
    return parse_json(body)


async def _read_body(request: Request) -> bytes:
    chunks: list[bytes] = []
    size = 0
    declared = request.headers.get("content-length", "0")
    limit = f"the body is larger than {MAX_BODY_BYTES} bytes; send less"
    if not declared.isdigit() or int(declared) > DRAIN_BYTES:
        raise ApiError(413, limit, code="body_too_large")
    async for chunk in request.stream():
        size += len(chunk)
        if size <= MAX_BODY_BYTES:
            chunks.append(chunk)
        elif size > DRAIN_BYTES:
            break
    if size > MAX_BODY_BYTES:
        raise ApiError(413, limit, code="body_too_large")
    return b"".join(chunks)


def parse_json(body: bytes) -> Any:
    """JSON as RFC 8259 has it: no NaN, and text that is text."""
    try:
        text = body.decode("utf-8")
        value = json.loads(text, parse_constant=_no_constant)
        if "\\u" in text:
            json.dumps(value, ensure_ascii=False).encode("utf-8")
    except UnicodeDecodeError as error:
        raise ApiError(
            400, f"the body is not UTF-8 (byte {error.start})", code="invalid_utf8"
        ) from None
    except UnicodeEncodeError:
        raise ApiError(
            400, "the body holds half of a surrogate pair", code="invalid_utf8"
        ) from None
    except RecursionError:
        raise ApiError(400, "the body is nested too deep", code="invalid_json") from None
    except ValueError as error:
        raise ApiError(400, f"the body is not JSON: {error}", code="invalid_json") from None
    return value


def _no_constant(name: str) -> Any:
    raise ValueError(f"{name} is not a JSON number")


class Gone(Exception):
    """The client has closed the connection."""


async def unless_gone(work: Awaitable[T], receive: Receive) -> T:
    """The result of `work`, which is cancelled when the client goes away first: then raises
    Gone."""
    task = asyncio.ensure_future(work)
    gone = asyncio.ensure_future(until_gone(receive))
    try:
        await asyncio.wait({task, gone}, return_when=asyncio.FIRST_COMPLETED)
        if not task.done():
            raise Gone
        return task.result()
    finally:
        await _cancelled(task)
        await _cancelled(gone)


async def until_gone(receive: Receive) -> None:
    while (await receive())["type"] != "http.disconnect":
        pass


async def _cancelled(task: asyncio.Future[Any]) -> None:
    if not task.done():
        task.cancel()
        with contextlib.suppress(asyncio.CancelledError, ClientDisconnect):
            await task


class EventStream(Response):
    """An ASGI response of server-sent events: `texts` yields whole ones. `close` is called when it
    is over, however it ended: all sent, the client gone, or nothing taken by the client for
    `SEND_TIME_S`.
    """

    def __init__(
        self,
        texts: AsyncIterator[str],
        close: Callable[[], None],
        headers: Mapping[str, str] | None = None,
    ) -> None:
        super().__init__(None, 200, headers, "text/event-stream")
        del self.headers["content-length"]
        self.headers["Cache-Control"] = "no-store"
        self.headers["X-Accel-Buffering"] = "no"  # a proxy in front must not collect the events
        self.texts, self.close = texts, close
        self._stuck = False

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        try:
            await unless_gone(self._send(send), receive)
        except (Gone, OSError):
            pass
        finally:
            self.close()

    async def _send(self, send: Send) -> None:
        await send(
            {"type": "http.response.start", "status": self.status_code, "headers": self.raw_headers}
        )
        try:
            async for text in self.texts:
                await self._in_time(
                    send({"type": "http.response.body", "body": text.encode(), "more_body": True})
                )
                await asyncio.sleep(
                    0
                )  # with more to send at hand, this is where a vanished client is noticed
            await self._in_time(
                send({"type": "http.response.body", "body": b"", "more_body": False})
            )
        except asyncio.CancelledError:
            if self._stuck:
                raise Gone from None
            raise

    async def _in_time(self, sending: Awaitable[None]) -> None:
        """A timer costs a hundredth of what `asyncio.wait_for` and its task do, and there is one
        for every token.
        """
        task = asyncio.current_task()
        assert task is not None
        timer = asyncio.get_running_loop().call_later(SEND_TIME_S, self._give_up, task)
        try:
            await sending
        finally:
            timer.cancel()

    def _give_up(self, task: asyncio.Task[Any]) -> None:
        self._stuck = True
        task.cancel()


def event(value: Any) -> str:
    """One server-sent event with JSON data."""
    return f"data: {json.dumps(value, ensure_ascii=False, separators=(',', ':'))}\n\n"
