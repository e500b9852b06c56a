"""A number for every request, and a line in the log when it is over. What was asked and answered is
in neither, nor addresses with their questions, cookies or keys.
"""

from __future__ import annotations

import logging
import re
import secrets
import time

from starlette.datastructures import Headers, MutableHeaders
from starlette.types import ASGIApp, Message, Receive, Scope, Send

log = logging.getLogger("nanochat.requests")
REQUEST_ID = "X-Request-ID"
SOUND_ID = re.compile(r"[A-Za-z0-9._-]{8,64}")


class RequestLog:
    """ASGI middleware, the outermost. A request keeps the number that a proxy gave it, or gets one;
    the answer carries it as X-Request-ID. The log has the route as it was declared, since an
    address may hold names and searches.
    """

    def __init__(self, app: ASGIApp) -> None:
        self.app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        given = Headers(scope=scope).get(REQUEST_ID.lower(), "")
        number = given if SOUND_ID.fullmatch(given) else secrets.token_hex(8)
        state = scope.setdefault("state", {})
        state["request_id"] = number
        start_s = time.monotonic()
        status, sent_bytes = 0, 0

        async def send_with_number(message: Message) -> None:
            nonlocal status, sent_bytes
            if message["type"] == "http.response.start":
                status = message["status"]
                MutableHeaders(scope=message)[REQUEST_ID] = number
            sent_bytes += len(message.get("body", b""))
            await send(message)

        try:
            await self.app(scope, receive, send_with_number)
        finally:
            fields = {
                "request_id": number,
                "method": scope["method"],
                "route": state.get("route", "other"),
                "status": status,
                "duration_ms": round(1000 * (time.monotonic() - start_s), 1),
                "sent_bytes": sent_bytes,
                "caller": state.get("client", ""),
            }
            log.info("request", extra={"fields": fields})
