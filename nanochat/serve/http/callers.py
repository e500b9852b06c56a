"""Who sends a request: by API key, by the session of a browser, or the one user of a server without
accounts.

Every route needs a caller but those of PUBLIC_ROUTES; the gate asks here before the application
sees anything, and routes get the answer as `Depends(current_user)`.
"""

from __future__ import annotations

import hashlib
import hmac
import re
import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from sqlalchemy.orm import Session
from starlette.datastructures import Headers
from starlette.requests import Request, cookie_parser
from starlette.types import Scope

from nanochat.serve.api_error import ApiError
from nanochat.serve.work.storage import Storage
from nanochat.store import api_keys, users, web_sessions
from nanochat.store.account_tables import UserRow
from nanochat.store.usage import NO_LIMITS, UsageLimits

PUBLIC_ROUTES = (
    "/health",
    "/health/live",
    "/health/ready",
    "/openapi.json",
    "/login",
    "/login/oidc",
    "/login/oidc/callback",
    "/pages/{name}",
)
COOKIE = "nanochat_session"
CSRF_HEADER = "X-CSRF-Token"
SAFE_METHODS = ("GET", "HEAD", "OPTIONS")
KNOWN_S = 1.0  # how long a caller is remembered, and a revoked key may still work
KEY_SEEN_S = 60.0  # how exactly `last_used_at` is kept
MOST_KNOWN = 10_000


@dataclass(frozen=True, kw_only=True)
class Caller:
    """Who asks. `csrf` is what unsafe requests of a signed-in browser must repeat; empty for
    others. Without a store `user_id` is 0 and `client` all that is known.
    """

    client: str
    user_id: int = 0
    public_id: str = ""
    name: str = "local"
    role: str = "admin"
    kind: str = "local"
    api_key_id: int | None = None
    session_id: int | None = None
    csrf: str = ""
    user_limits: UsageLimits = NO_LIMITS
    key_limits: UsageLimits = NO_LIMITS

    @property
    def is_admin(self) -> bool:
        return self.role == "admin"


def current_user(request: Request) -> Caller:
    """The caller, for routes: `caller: Caller = Depends(current_user)`. ApiError 401."""
    caller = getattr(request.state, "caller", None)
    if caller is None:
        raise ApiError(401, "sign in, or send an API key", code="not_signed_in")
    assert isinstance(caller, Caller)
    return caller


def require_admin(request: Request) -> Caller:
    """The caller, who administrates. ApiError 401 or 403."""
    caller = current_user(request)
    if not caller.is_admin:
        raise ApiError(403, "only an admin may do this", code="not_admin")
    return caller


def signed_in(request: Request) -> Caller:
    """The caller, who is a person at a browser: a key must not make further keys. ApiError 403."""
    caller = current_user(request)
    if caller.api_key_id is not None or caller.kind == "key":
        raise ApiError(403, "sign in with a browser to do this", code="not_signed_in")
    return caller


def is_public(path: str) -> bool:
    """Whether a path, without the prefix of --root-path, needs no caller."""
    return path in PUBLIC_ROUTES or re.fullmatch(r"/pages/[^/]+", path) is not None


class Callers:
    """Finds callers in the store. `keys` are those of --api-key-file; `sign_in_always`: also while
    there is no account yet. Lives in one event loop.
    """

    def __init__(self, storage: Storage, keys: Sequence[str], sign_in_always: bool = False) -> None:
        self.storage = storage
        self.keys = {hashlib.sha256(key.encode()).hexdigest(): key for key in keys}
        self._known: dict[str, tuple[float, Caller | None]] = {}
        self._key_seen_s: dict[int, float] = {}
        self._accounts = sign_in_always

    async def accounts(self) -> bool:
        """Whether one has to sign in. Once there are accounts there always are."""
        if not self._accounts:
            known = self._known.get("accounts")
            if known is None or known[0] < time.monotonic():
                self._accounts = await self.storage.read(users.any_accounts)
                self._known["accounts"] = (time.monotonic() + KNOWN_S, None)
        return self._accounts

    async def of(self, scope: Scope) -> Caller | None:
        """The caller of a request; None when it brings nothing to tell by, though that is needed.
        ApiError 401 for a key that is not known, 403 without the session's CSRF token.
        """
        headers = Headers(scope=scope)
        authorization = headers.getlist("authorization")
        if authorization:
            return await self._by_key(authorization)
        token = session_token(headers)
        if token:
            caller = await self._remembered(f"session {token}", caller_of_session, token)
            if caller is not None:
                check_csrf(scope["method"], headers, caller)
                await self._note_session(caller)
                return caller
        if self.keys or await self.accounts():
            return None
        return await self._remembered("local", caller_local)

    def forget(self) -> None:
        """Look everybody up again: a session, key or role has changed."""
        self._known.clear()

    async def _by_key(self, authorization: list[str]) -> Caller:
        scheme, _, key = authorization[0].partition(" ")
        key = key.strip()
        if scheme.lower() != "bearer" or not key or len(authorization) > 1:
            reason = "an API key is needed: send the header `Authorization: Bearer KEY`, once"
            raise ApiError(401, reason, code="no_api_key")
        digest = hashlib.sha256(key.encode("utf-8", "replace")).hexdigest()
        of_file = [known for known in self.keys if hmac.compare_digest(known, digest)]
        if of_file:
            caller = await self._remembered(f"file {digest}", caller_of_file, self.keys[of_file[0]])
        else:
            caller = await self._remembered(f"key {digest}", caller_of_key, key)
        if caller is None:
            raise ApiError(
                401,
                "the API key is not known to this server; it may be revoked or expired",
                code="invalid_api_key",
            )
        await self._note_key(caller)
        return caller

    async def _remembered(self, name: str, query: Any, *words: Any) -> Caller | None:
        """What was found a moment ago, or now."""
        until_s, caller = self._known.get(name, (0.0, None))
        if until_s < time.monotonic():
            if len(self._known) >= MOST_KNOWN:
                self._known.clear()
            search = self.storage.write if query in (caller_local, caller_of_file) else None
            caller = await (search or self.storage.read)(query, *words)
            self._known[name] = (time.monotonic() + KNOWN_S, caller)
        return caller

    async def _note_session(self, caller: Caller) -> None:
        assert caller.session_id is not None
        await self._note(-caller.session_id, web_sessions.SEEN_EVERY_S, web_sessions.seen)

    async def _note_key(self, caller: Caller) -> None:
        if caller.api_key_id is not None:
            await self._note(caller.api_key_id, KEY_SEEN_S, api_keys.used)

    async def _note(self, number: int, every_s: float, query: Any) -> None:
        """Write down, not too often, that a key (or, below 0, a session) is in use."""
        now = time.monotonic()
        if self._key_seen_s.get(number, -every_s) + every_s <= now:
            if len(self._key_seen_s) >= MOST_KNOWN:
                self._key_seen_s.clear()
            self._key_seen_s[number] = now
            self.storage.submit(query, abs(number))


def session_token(headers: Headers) -> str:
    """The session cookie's value, or nothing."""
    values = [
        cookie_parser(line)[COOKIE]
        for line in headers.getlist("cookie")
        if COOKIE in cookie_parser(line)
    ]
    return values[0] if values else ""


def check_csrf(method: str, headers: Headers, caller: Caller) -> None:
    """ApiError 403: another page could have made the browser send this."""
    given = headers.get(CSRF_HEADER, "").encode("utf-8", "replace")
    if method not in SAFE_METHODS and not hmac.compare_digest(given, caller.csrf.encode()):
        reason = f"the header {CSRF_HEADER} is missing or old; load the page again"
        raise ApiError(403, reason, code="csrf")


# --- queries


def caller_of_session(session: Session, token: str) -> Caller | None:
    found = web_sessions.find(session, token)
    if found is None:
        return None
    row, user = found
    return caller(user, session_id=row.id, csrf=row.csrf)


def caller_of_key(session: Session, key: str) -> Caller | None:
    found = api_keys.find(session, key)
    if found is None:
        return None
    row, user = found
    limits = UsageLimits(
        tokens_per_day=row.tokens_per_day, requests_per_minute=row.requests_per_minute
    )
    return caller(user, api_key_id=row.id, key_limits=limits)


def caller_of_file(session: Session, key: str) -> Caller | None:
    user = users.key_user(session, key)
    return None if user.disabled else caller(user)


def caller_local(session: Session) -> Caller:
    return caller(users.local_user(session))


def caller(user: UserRow, **more: Any) -> Caller:
    limits = UsageLimits(
        tokens_per_day=user.tokens_per_day, requests_per_minute=user.requests_per_minute
    )
    return Caller(
        client=f"user-{user.id}",
        user_id=user.id,
        public_id=user.public_id,
        name=user.name,
        role=user.role,
        kind=user.kind,
        user_limits=limits,
        **more,
    )
