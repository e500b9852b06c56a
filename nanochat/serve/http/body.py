"""Request bodies: read whole, unpacked and within limits, before the application sees them."""

from __future__ import annotations

import asyncio
import zlib

from starlette.datastructures import Headers, MutableHeaders
from starlette.requests import ClientDisconnect, Request
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from nanochat.serve.api_error import ApiError
from nanochat.serve.http.error_response import error_response

MAX_BODY_BYTES = 4 << 20
# paths that take more: files of people
LARGER_BYTES = {"/api/attachments": 20 << 20, "/api/conversations/import": 48 << 20}
# of a body that is too large: read and thrown away, so that its sender gets to see the answer
DRAIN_BYTES = 64 << 20
BODY_TIME_S = 30.0
GZIP_WINDOW = 16 + zlib.MAX_WBITS


class BodyReader:
    """ASGI middleware. Refuses what is too large (413, also when it only becomes so by unpacking),
    too slow (408), or packed in another way than gzip (415).
    """

    def __init__(self, app: ASGIApp) -> None:
        self.app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http" or scope["method"] not in ("POST", "PUT", "PATCH"):
            await self.app(scope, receive, send)
            return
        try:
            body = await whole_body(Request(scope, receive))
        except ApiError as error:
            await error_response(error)(scope, receive, send)
            return
        except ClientDisconnect:
            return
        headers = MutableHeaders(scope=scope)
        headers["content-length"] = str(len(body))
        headers["content-type"] = "application/json"  # every body here is, whatever it is called
        del headers["content-encoding"]
        pending = [{"type": "http.request", "body": body, "more_body": False}]

        async def receive_body() -> Message:
            return pending.pop() if pending else await receive()

        await self.app(scope, receive_body, send)


async def whole_body(request: Request) -> bytes:
    packed_by = encoding_of(request.headers)
    path = request.scope["path"].removeprefix(request.scope.get("root_path", ""))
    most_bytes = LARGER_BYTES.get(path, MAX_BODY_BYTES)
    try:
        body = await asyncio.wait_for(read_body(request, most_bytes), BODY_TIME_S)
    except asyncio.TimeoutError:
        raise ApiError(
            408, f"the body did not arrive within {BODY_TIME_S:.0f} s", code="timeout"
        ) from None
    return unpacked(body, most_bytes) if packed_by == "gzip" else body


def encoding_of(headers: Headers) -> str:
    """gzip or nothing. ApiError 415 for another one."""
    encoding = headers.get("content-encoding", "").strip().lower()
    if encoding in ("", "identity"):
        return ""
    if encoding in ("gzip", "x-gzip"):
        return "gzip"
    reason = f"Content-Encoding: {encoding[:60]}: not supported; send plain JSON, or gzip"
    raise ApiError(415, reason, code="unsupported_encoding")


async def read_body(request: Request, most_bytes: int) -> bytes:
    declared = request.headers.get("content-length", "0")
    if not declared.isdigit() or int(declared) > DRAIN_BYTES:
        raise too_large(most_bytes)
    chunks: list[bytes] = []
    size = 0
    async for chunk in request.stream():
        size += len(chunk)
        if size <= most_bytes:
            chunks.append(chunk)
        elif size > DRAIN_BYTES:
            break
    if size > most_bytes:
        raise too_large(most_bytes)
    return b"".join(chunks)


def unpacked(body: bytes, most_bytes: int) -> bytes:
    """What gzip packed. Never holds more than the limit, whatever was made of it: ApiError 413.
    400 when it is damaged, or more than one file (a million empty ones would take seconds).
    """
    packed = zlib.decompressobj(GZIP_WINDOW)
    try:
        result = packed.decompress(body, most_bytes + 1)
    except zlib.error as error:
        raise not_gzip(str(error)) from None
    if len(result) > most_bytes:
        raise too_large(most_bytes)
    if not packed.eof:
        raise not_gzip("it ends too early")
    if packed.unused_data.strip(b"\0"):
        raise not_gzip("something follows its end")
    return result


def not_gzip(reason: str) -> ApiError:
    said = f"the body is not gzip, as Content-Encoding says: {reason}"
    return ApiError(400, said, code="invalid_gzip")


def too_large(most_bytes: int) -> ApiError:
    reason = f"the body is larger than {most_bytes} bytes; send less"
    return ApiError(413, reason, code="body_too_large")
