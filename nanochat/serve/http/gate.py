"""What every request passes: who sends it, whether it may, and the headers every answer carries."""

from __future__ import annotations

import hashlib
import hmac
from collections.abc import Sequence
from urllib.parse import quote, urlsplit

from starlette.datastructures import Headers, MutableHeaders
from starlette.middleware.cors import CORSMiddleware
from starlette.responses import RedirectResponse
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from nanochat.serve.api_error import ApiError
from nanochat.serve.http.callers import Caller, Callers, is_public
from nanochat.serve.http.error_response import error_response
from nanochat.serve.web_config import is_loopback
from nanochat.serve.work.serving_metrics import ServingMetrics

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
    """ASGI middleware. With accounts a request needs a caller, with `keys` one of them. With
    neither, only this machine's own pages and programs are served, and the pages of
    `allowed_origins`: another page that is open in the browser here must not get at the models (DNS
    rebinding). `callers` is None for a server without a store.
    """

    def __init__(
        self,
        app: ASGIApp,
        keys: Sequence[str],
        allowed_origins: Sequence[str],
        metrics: ServingMetrics,
        callers: Callers | None = None,
    ) -> None:
        self.app = app
        self.allowed_origins = allowed_origins
        self.metrics = metrics
        self.callers = callers
        self.keys = [hashlib.sha256(key.encode()).digest() for key in keys]

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        scope = dict(scope)
        scope.setdefault("state", {})

        def count(status: int) -> None:
            route = scope.get("route")  # where the application found one
            path = route.path if route else "other"
            scope["state"]["route"] = path
            self.metrics.requests.labels(path, status).inc()

        async def send_with_headers(message: Message) -> None:
            if message["type"] == "http.response.start":
                headers = MutableHeaders(scope=message)
                for name, value in SECURITY.items():
                    headers.setdefault(name, value)
                count(message["status"])
            await send(message)

        try:
            caller = await self.caller(scope)
        except ApiError as error:
            if error.code == "not_signed_in" and is_navigation(scope):
                await to_login(scope)(scope, receive, send_with_headers)
                return
            await error_response(error)(scope, receive, send_with_headers)
            return
        state = scope["state"]
        state["caller"] = caller
        state["client"] = "open" if caller is None else caller.client
        if scope["method"] == "HEAD":  # uvicorn knows, and leaves the body out
            scope["method"] = "GET"
        try:
            await self.app(scope, receive, send_with_headers)
        except Exception:
            count(500)
            raise

    async def caller(self, scope: Scope) -> Caller | None:
        """Who sends the request; None where that does not matter. ApiError 401 or 403 when it may
        not pass.
        """
        headers = Headers(scope=scope)
        path = route_path(scope)
        accounts = self.callers is not None and await self.callers.accounts()
        if not self.keys and not accounts:
            self._check_local(headers)
        if is_public(path) or (path == "/" and self.keys and not accounts):
            return None  # where there are only keys, the page asks for one itself
        if self.callers is None:
            return self._without_store(scope, headers)
        caller = await self.callers.of(scope)
        if caller is None and accounts:
            raise ApiError(401, "sign in, or send an API key", code="not_signed_in")
        if caller is None:
            raise no_key()
        return caller

    def _check_local(self, headers: Headers) -> None:
        """ApiError 403 for what does not come from this machine."""
        host = headers.get("host", "")
        if host and not names_this_machine(host):
            raise not_local("Host", host)
        origin = headers.get("origin", "")
        if origin and origin not in self.allowed_origins and not names_this_machine(origin):
            raise not_local("Origin", origin)

    def _without_store(self, scope: Scope, headers: Headers) -> Caller:
        """Whose turn the request takes: its key, or its address."""
        if not self.keys:
            return Caller(client=scope["client"][0] if scope.get("client") else "local")
        scheme, _, key = headers.get("authorization", "").partition(" ")
        if scheme.lower() != "bearer" or not key:
            raise no_key()
        digest = hashlib.sha256(key.strip().encode("utf-8", "replace")).digest()
        matches = [hmac.compare_digest(digest, known) for known in self.keys]
        if not any(matches):
            raise ApiError(401, "the API key is not known to this server", code="invalid_api_key")
        name = f"key-{matches.index(True)}"
        return Caller(client=name, name=name, role="user", kind="key")


class LocalCORS(CORSMiddleware):
    """CORS for the origins it is given and for pages of this machine."""

    def is_allowed_origin(self, origin: str) -> bool:
        return names_this_machine(origin) or super().is_allowed_origin(origin)


def route_path(scope: Scope) -> str:
    """The path as routes are declared: without the prefix of --root-path."""
    root, path = scope.get("root_path", ""), str(scope["path"])
    if root and (path == root or path.startswith(f"{root}/")):
        return path[len(root) :] or "/"
    return path


def is_navigation(scope: Scope) -> bool:
    """Whether a person waits for a page, and not a program for data."""
    return scope["method"] in ("GET", "HEAD") and "text/html" in Headers(scope=scope).get(
        "accept", ""
    )


def to_login(scope: Scope) -> RedirectResponse:
    """To the log-in, and from there back."""
    query = scope["query_string"].decode("latin-1")
    wanted = route_path(scope) + (f"?{query}" if query else "")
    place = f"{scope.get('root_path', '')}/login"
    return RedirectResponse(f"{place}?next={quote(wanted, safe='')}", 303)


def no_key() -> ApiError:
    reason = "an API key is needed: send the header `Authorization: Bearer KEY`"
    return ApiError(401, reason, code="no_api_key")


def not_local(header: str, value: str) -> ApiError:
    reason = (
        f"{header}: {value[:100]}: without accounts and API keys only this machine is served; to "
        "use the server under another name make an account (nanochat users add NAME --role admin) "
        "or start it with --api-key-file"
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
