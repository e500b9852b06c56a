"""What every request passes: who sends it, whether it may, and the headers every answer carries."""

from __future__ import annotations

import hashlib
import hmac
from collections.abc import Sequence
from urllib.parse import urlsplit

from starlette.datastructures import Headers, MutableHeaders
from starlette.middleware.cors import CORSMiddleware
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from nanochat.serve.api_error import ApiError
from nanochat.serve.http.error_response import error_response
from nanochat.serve.web_config import is_loopback
from nanochat.serve.work.serving_metrics import ServingMetrics

OPEN = ("/", "/health", "/health/live", "/health/ready", "/openapi.json")
SECURITY = {
    "Content-Security-Policy": (
        "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; "
        "connect-src 'self'; "
        "base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
    ),
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
}


class Gate:
    """ASGI middleware. With keys a request needs one. Without, only this machine's own pages and
    programs are served, and the pages of `allowed_origins`: another page that is open in the
    browser here must not get at the models (DNS rebinding).
    """

    def __init__(
        self,
        app: ASGIApp,
        keys: Sequence[str],
        allowed_origins: Sequence[str],
        metrics: ServingMetrics,
    ) -> None:
        self.app = app
        self.allowed_origins = allowed_origins
        self.metrics = metrics
        self.keys = [hashlib.sha256(key.encode()).digest() for key in keys]

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        scope = dict(scope)

        def count(status: int) -> None:
            route = scope.get("route")  # where the application found one
            self.metrics.requests.labels(route.path if route else "other", status).inc()

        async def send_with_headers(message: Message) -> None:
            if message["type"] == "http.response.start":
                headers = MutableHeaders(scope=message)
                for name, value in SECURITY.items():
                    headers.setdefault(name, value)
                count(message["status"])
            await send(message)

        try:
            client = self.client(scope)
        except ApiError as error:
            await error_response(error)(scope, receive, send_with_headers)
            return
        scope.setdefault("state", {})["client"] = client
        if scope["method"] == "HEAD":  # uvicorn knows, and leaves the body out
            scope["method"] = "GET"
        try:
            await self.app(scope, receive, send_with_headers)
        except Exception:
            count(500)
            raise

    def client(self, scope: Scope) -> str:
        """Whose turn the request takes: its key, or its address. ApiError 401 or 403 when it may
        not pass.
        """
        headers = Headers(scope=scope)
        if self.keys:
            if scope["path"] in OPEN or scope["path"].startswith("/pages/"):
                return "open"
            return self._key_owner(headers.get("authorization", ""))
        host = headers.get("host", "")
        if host and not names_this_machine(host):
            raise not_local("Host", host)
        origin = headers.get("origin", "")
        if origin and origin not in self.allowed_origins and not names_this_machine(origin):
            raise not_local("Origin", origin)
        return scope["client"][0] if scope.get("client") else "local"

    def _key_owner(self, authorization: str) -> str:
        scheme, _, key = authorization.partition(" ")
        if scheme.lower() != "bearer" or not key:
            raise ApiError(
                401,
                "an API key is needed: send the header `Authorization: Bearer KEY`",
                code="no_api_key",
            )
        digest = hashlib.sha256(key.strip().encode("utf-8", "replace")).digest()
        matches = [hmac.compare_digest(digest, known) for known in self.keys]
        if not any(matches):
            raise ApiError(401, "the API key is not known to this server", code="invalid_api_key")
        return f"key-{matches.index(True)}"


class LocalCORS(CORSMiddleware):
    """CORS for the origins it is given and for pages of this machine."""

    def is_allowed_origin(self, origin: str) -> bool:
        return names_this_machine(origin) or super().is_allowed_origin(origin)


def not_local(header: str, value: str) -> ApiError:
    reason = (
        f"{header}: {value[:100]}: without API keys only this machine is served; start the server "
        "with --api-key-file to use it under another name"
    )
    return ApiError(403, reason, code="not_local")


def names_this_machine(value: str) -> bool:
    """Whether a Host (`localhost:8000`) or Origin (`http://localhost:8000`) header names this
    machine itself.
    """
    try:
        host = urlsplit(value if "//" in value else f"//{value}").hostname or ""
        return is_loopback(host) or host.endswith(".localhost")
    except ValueError:
        return False
