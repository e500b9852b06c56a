"""Server-sent events, and noticing when nobody reads them."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from functools import partial
from typing import Any, TypeVar

import anyio
from starlette.requests import ClientDisconnect, Request
from starlette.responses import StreamingResponse
from starlette.types import Message, Receive, Scope, Send

SEND_TIME_S = 30.0
# inside JSON strings these are plain characters to JSON and ends of lines to some readers of events
LINE_ENDS = str.maketrans({"\u0085": r"\u0085", "\u2028": r"\u2028", "\u2029": r"\u2029"})

T = TypeVar("T")


def sse(value: Any) -> str:
    """One server-sent event with JSON data."""
    data = json.dumps(value, ensure_ascii=False, separators=(",", ":"))
    return f"data: {data.translate(LINE_ENDS)}\n\n"


class EventStream(StreamingResponse):
    """A response of server-sent events: `events` yields whole ones. `close` is called when it is
    over, however it ended: all sent, the client gone, or nothing taken by the client for
    `SEND_TIME_S`.
    """

    media_type = "text/event-stream"

    def __init__(
        self,
        events: AsyncIterator[str],
        close: Callable[[], None],
        headers: Mapping[str, str],
    ) -> None:
        super().__init__(events, headers=headers)
        self.headers["Cache-Control"] = "no-store"
        self.headers["X-Accel-Buffering"] = "no"  # a proxy in front must not collect the events
        self.close = close

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        try:
            await super().__call__(scope, receive, partial(send_in_time, send))
        except (TimeoutError, ClientDisconnect):
            pass  # nobody reads it any more
        finally:
            self.close()


async def send_in_time(send: Send, message: Message) -> None:
    """Send, or TimeoutError; with more to send at hand, let a vanished client be noticed."""
    with anyio.fail_after(SEND_TIME_S):
        await send(message)
    await asyncio.sleep(0)


async def unless_gone(work: Awaitable[T], request: Request) -> T:
    """The result of `work`. When the client leaves first it is cancelled: ClientDisconnect."""
    task = asyncio.ensure_future(work)
    gone = asyncio.ensure_future(until_gone(request))
    try:
        await asyncio.wait({task, gone}, return_when=asyncio.FIRST_COMPLETED)
        if not task.done():
            raise ClientDisconnect
        return task.result()
    finally:
        task.cancel()
        gone.cancel()
        await asyncio.gather(task, gone, return_exceptions=True)


async def until_gone(request: Request) -> None:
    while (await request.receive())["type"] != "http.disconnect":
        pass
