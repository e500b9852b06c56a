"""Signing in with an OpenID Connect provider: /login/oidc and back at /login/oidc/callback."""

from __future__ import annotations

import base64
import hmac
import json
import re
from dataclasses import asdict
from typing import Any

from fastapi import APIRouter
from sqlalchemy.orm import Session
from starlette.requests import Request
from starlette.responses import RedirectResponse, Response

from nanochat.serve.api_error import ApiError
from nanochat.serve.http.callers import Callers
from nanochat.serve.http.error_response import ERRORS
from nanochat.serve.http.login_routes import (
    BUTTON,
    cookie_path,
    is_secure,
    login_form,
    start_session,
)
from nanochat.serve.http.oidc_provider import Flow, OIDCProvider, allowed, refused
from nanochat.serve.http.oidc_settings import OIDCSettings
from nanochat.store import users
from nanochat.store.account_tables import UserRow

FLOW_COOKIE = "nanochat_oidc"
FLOW_S = 600


def oidc_router(callers: Callers, settings: OIDCSettings) -> APIRouter:
    routes = APIRouter(tags=["accounts"], responses=ERRORS)
    provider = OIDCProvider(settings)

    @routes.get("/login/oidc", include_in_schema=False)
    async def begin(request: Request, next: str = "/") -> Response:  # noqa: A002
        flow = Flow(place=next[:1000])
        try:
            address = await provider.address(flow, callback_url(request, settings))
        except ApiError as error:
            return login_form(request, next, BUTTON, error)
        response = RedirectResponse(address, 303)
        response.set_cookie(
            FLOW_COOKIE,
            base64.urlsafe_b64encode(json.dumps(asdict(flow)).encode()).decode(),
            max_age=FLOW_S,
            path=cookie_path(request),
            secure=is_secure(request),
            httponly=True,
            samesite="lax",
        )
        return response

    @routes.get("/login/oidc/callback", include_in_schema=False)
    async def callback(
        request: Request, state: str = "", code: str = "", error: str = ""
    ) -> Response:
        try:
            flow = flow_of(request.cookies.get(FLOW_COOKIE, ""))
            if flow is None or not hmac.compare_digest(flow.state.encode(), state.encode()):
                raise refused("it was begun elsewhere, or too long ago")
            if error or not code:
                raise refused(f"the provider says {error[:60] or 'nothing'}")
            claims = await provider.claims(code, flow, callback_url(request, settings))
            if not allowed(claims, settings.domains):
                raise ApiError(403, "your e-mail address is not among those that may sign in here")
            user = await callers.storage.write(user_of, settings.issuer, claims)
            if user.disabled:
                raise ApiError(403, "this account is disabled")
        except ApiError as problem:
            response = login_form(request, "/", BUTTON, problem)
        else:
            response = await start_session(callers, request, user.id, flow.place)
        response.delete_cookie(FLOW_COOKIE, path=cookie_path(request))
        return response

    return routes


def callback_url(request: Request, settings: OIDCSettings) -> str:
    """Where the provider sends the browser back to; it must know the address."""
    if settings.public_url is not None:
        return f"{settings.public_url.rstrip('/')}/login/oidc/callback"
    scheme = "https" if is_secure(request) else "http"
    root = request.scope.get("root_path", "")
    return f"{scheme}://{request.headers.get('host', '')}{root}/login/oidc/callback"


def flow_of(cookie: str) -> Flow | None:
    """The log-in that this browser has begun; None when it has not."""
    try:
        fields: dict[str, Any] = json.loads(base64.urlsafe_b64decode(cookie))
        return Flow(**{name: str(fields[name]) for name in ("state", "nonce", "verifier", "place")})
    except (ValueError, KeyError, TypeError):
        return None


def user_of(session: Session, issuer: str, claims: dict[str, Any]) -> UserRow:
    """The user whom the provider means, made at the first log-in. An account of the same name that
    was made here is somebody else's.
    """
    subject = f"{issuer}|{claims['sub']}"[:512]
    found = users.by_subject(session, subject)
    if found is not None:
        return found
    wanted = str(claims.get("preferred_username") or claims.get("email") or claims["sub"])
    name = re.sub(r"[^\w.@+-]", "-", wanted)[:58] or "user"
    number = 1
    free = name
    while users.named(session, free) is not None:
        number += 1
        free = f"{name}-{number}"
    return users.add(session, free, oidc_subject=subject)
