"""What one may know and change of oneself: /api/me, /api/keys, /api/usage."""

from __future__ import annotations

import time
from typing import Any, Literal

from fastapi import APIRouter, Depends
from pydantic import BaseModel, ConfigDict, Field
from sqlalchemy.orm import Session
from starlette.requests import Request
from starlette.responses import Response

from nanochat.serve.api_error import ApiError
from nanochat.serve.http.callers import Caller, Callers, current_user, signed_in
from nanochat.serve.http.error_response import ERRORS
from nanochat.serve.http.login_routes import start_session
from nanochat.serve.http.password_check import PasswordCheck
from nanochat.store import api_keys, usage, users
from nanochat.store.account_tables import ApiKeyRow, UserRow

MOST_SETTINGS = 10_000  # characters


class Strictly(BaseModel):
    """A body whose fields are all known."""

    model_config = ConfigDict(extra="forbid")


class NewKey(Strictly):
    """What a new API key is called and how far it goes."""

    name: str = Field(min_length=1, max_length=64)
    days: int | None = Field(default=None, ge=1, le=api_keys.MOST_DAYS)
    tokens_per_day: int | None = Field(default=None, ge=0, le=users.MOST_PER_DAY)
    requests_per_minute: int | None = Field(default=None, ge=0, le=users.MOST_PER_DAY)


class NewPassword(Strictly):
    """The password there is, and the one to come."""

    old: str = Field(max_length=2000)
    new: str = Field(max_length=2000)


class Myself(Strictly):
    """What a user may change of themselves."""

    consent_training: bool | None = None
    settings: dict[str, Any] | None = None


def myself_router(callers: Callers, passwords: PasswordCheck) -> APIRouter:
    """A user's own account."""
    routes = APIRouter(tags=["accounts"], responses=ERRORS)
    storage = callers.storage

    @routes.get("/api/me", summary="Who I am, and what I may use")
    async def me(caller: Caller = Depends(current_user)) -> dict[str, Any]:
        user, used = await storage.read(myself, caller.user_id)
        return {**about(user, used), "csrf": caller.csrf, "accounts": await callers.accounts()}

    @routes.patch("/api/me", summary="Whether my feedback may be trained on; settings of the page")
    async def change_me(body: Myself, caller: Caller = Depends(signed_in)) -> dict[str, Any]:
        if len(str(body.settings)) > MOST_SETTINGS:
            raise ApiError(400, "settings: too large", "settings")
        await storage.write(change, caller.user_id, body.model_dump(exclude_none=True))
        user, used = await storage.read(myself, caller.user_id)
        return about(user, used)

    @routes.post("/api/me/password", summary="Change my password; ends all sessions but this")
    async def password(
        body: NewPassword, request: Request, caller: Caller = Depends(signed_in)
    ) -> Response:
        address = request.client.host if request.client else ""
        user, _ = await storage.read(myself, caller.user_id)
        if not await passwords.fits(user.name, address, body.old, user.password_hash):
            raise ApiError(403, "old: is not your password", "old")
        try:
            kept = await passwords.hashed(body.new)
        except ValueError as error:
            raise ApiError(400, f"new: {error}", "new") from None
        await storage.write(set_password, caller.user_id, kept)
        return await start_session(callers, request, caller.user_id, "/", plain=True)

    return routes


def key_router(callers: Callers) -> APIRouter:
    """A user's API keys, and what was used with and without them."""
    routes = APIRouter(tags=["accounts"], responses=ERRORS)
    storage = callers.storage

    @routes.get("/api/keys", summary="My API keys")
    async def keys(caller: Caller = Depends(signed_in)) -> dict[str, Any]:
        rows = await storage.read(api_keys.valid, caller.user_id)
        return {"data": [about_key(row) for row in rows]}

    @routes.post("/api/keys", summary="A new API key; only this answer shows it", status_code=201)
    async def make_key(body: NewKey, caller: Caller = Depends(signed_in)) -> dict[str, Any]:
        try:
            row, key = await storage.write(api_keys.make, caller.user_id, **body.model_dump())
        except ValueError as error:
            raise ApiError(400, str(error), str(error).partition("=")[0]) from None
        return {**about_key(row), "key": key}

    @routes.delete("/api/keys/{public_id}", summary="Revoke an API key")
    async def revoke(public_id: str, caller: Caller = Depends(signed_in)) -> dict[str, Any]:
        if not await storage.write(api_keys.revoke, caller.user_id, public_id):
            raise ApiError(404, "there is no such key", code="not_found")
        callers.forget()
        return {"revoked": public_id}

    @routes.get("/api/usage", summary="What I used")
    async def my_usage(
        days: int = 7,
        by: Literal["day", "model", "key"] = "day",
        caller: Caller = Depends(current_user),
    ) -> dict[str, Any]:
        since = time.time() - 86_400 * min(max(days, 1), 3660)
        rows = await storage.read(usage.totals, since, by, caller.user_id)
        return {"data": [{**vars(row), "tokens": row.tokens} for row in rows]}

    return routes


def myself(session: Session, user_id: int) -> tuple[UserRow, int]:
    """(the user's row, tokens used today)."""
    return session.get_one(UserRow, user_id), usage.used_today(session, user_id)


def change(session: Session, user_id: int, values: dict[str, Any]) -> None:
    user = session.get_one(UserRow, user_id)
    for name, value in values.items():
        setattr(user, name, value)


def set_password(session: Session, user_id: int, password_hash: str) -> None:
    users.set_password(session, session.get_one(UserRow, user_id), password_hash)


def about(user: UserRow, used_today: int) -> dict[str, Any]:
    return {
        "id": user.public_id,
        "name": user.name,
        "role": user.role,
        "kind": user.kind,
        "tokens_today": used_today,
        "tokens_per_day": user.tokens_per_day,
        "requests_per_minute": user.requests_per_minute,
        "consent_training": user.consent_training,
        "settings": user.settings,
    }


def about_key(row: ApiKeyRow) -> dict[str, Any]:
    return {
        "id": row.public_id,
        "name": row.name,
        "prefix": row.prefix,
        "created_at": row.created_at,
        "expires_at": row.expires_at,
        "last_used_at": row.last_used_at,
        "tokens_per_day": row.tokens_per_day,
        "requests_per_minute": row.requests_per_minute,
    }
