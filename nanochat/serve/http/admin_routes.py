"""What an admin may change: models, users and their keys, what becomes of feedback."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, Literal

from fastapi import APIRouter, Depends
from pydantic import BaseModel, ConfigDict, Field, field_validator
from sqlalchemy.orm import Session
from starlette.responses import Response

from nanochat.feedback.feedback_export import FeedbackExport, gather
from nanochat.serve.api_error import ApiError
from nanochat.serve.http.admin_pages import served_models
from nanochat.serve.http.callers import Caller, Callers, require_admin
from nanochat.serve.http.error_response import ERRORS
from nanochat.serve.http.password_check import PasswordCheck
from nanochat.serve.work.service import Service
from nanochat.store import api_keys, users
from nanochat.store import feedback_rows as feedback
from nanochat.store.account_tables import UserRow

EXPORTS = {"conversations": "conversations", "preferences": "pairs"}


class AdminBody(BaseModel):
    """Fields that are known; numbers may come as the texts of a form, empty ones as none."""

    model_config = ConfigDict(extra="forbid")


class ModelChange(AdminBody):
    """A checkpoint (stage:tag or stage:tag:step) that comes, goes, or answers first."""

    action: Literal["load", "unload", "default"]
    model: str = Field(min_length=1, max_length=200)


class UserChange(AdminBody):
    """What is left out stays; an empty limit is none."""

    role: Literal["user", "admin"] | None = None
    disabled: bool | None = None
    tokens_per_day: int | None = Field(default=None, ge=0, le=users.MOST_PER_DAY)
    requests_per_minute: int | None = Field(default=None, ge=0, le=users.MOST_PER_DAY)

    @field_validator("tokens_per_day", "requests_per_minute", mode="before")
    @classmethod
    def empty_is_none(cls, value: Any) -> Any:
        return None if value == "" else value


class NewUser(AdminBody):
    """An account; without a password it is for API keys only."""

    name: str = Field(min_length=1, max_length=64)
    role: Literal["user", "admin"] = "user"
    password: str = Field(default="", max_length=2000)


class Review(AdminBody):
    """What becomes of a feedback; an edit comes with the answer as it should be."""

    decision: Literal["accept", "edit", "reject"]
    corrected: str | None = Field(default=None, max_length=1_000_000)


def admin_router(service: Service, callers: Callers, passwords: PasswordCheck) -> APIRouter:
    routes = APIRouter(prefix="/admin", tags=["administration"], responses=ERRORS)
    routes.include_router(model_router(service))
    routes.include_router(user_router(callers, passwords))
    routes.include_router(review_router(callers))
    return routes


def model_router(service: Service) -> APIRouter:
    routes = APIRouter()

    @routes.post("/models", summary="Load, unload or make default; running answers finish")
    async def change(body: ModelChange, caller: Caller = Depends(require_admin)) -> dict[str, Any]:
        name = body.model
        if body.action == "load":
            name = await service.load(body.model)
        elif body.action == "unload":
            service.unload(body.model)
        else:
            service.make_default(body.model)
        return {"model": name, "models": served_models(service)}

    return routes


def user_router(callers: Callers, passwords: PasswordCheck) -> APIRouter:
    routes = APIRouter()
    storage = callers.storage

    @routes.post("/users", summary="Make an account", status_code=201)
    async def add(body: NewUser, caller: Caller = Depends(require_admin)) -> dict[str, Any]:
        kept = None
        try:
            if body.password:
                kept = await passwords.hashed(body.password)
            user = await storage.write(users.add, body.name, role=body.role, password_hash=kept)
        except ValueError as error:
            raise ApiError(400, str(error)) from None
        callers.forget()
        return {"id": user.public_id, "name": user.name}

    @routes.patch("/users/{public_id}", summary="Role, limits, whether the user may come in")
    async def change(
        public_id: str, body: UserChange, caller: Caller = Depends(require_admin)
    ) -> dict[str, Any]:
        try:
            await storage.write(change_user, public_id, body)
        except ValueError as error:
            raise ApiError(400, str(error)) from None
        callers.forget()
        return {"id": public_id}

    @routes.delete("/users/{public_id}", summary="Delete a user with all that is theirs")
    async def remove(public_id: str, caller: Caller = Depends(require_admin)) -> dict[str, Any]:
        if public_id == caller.public_id:
            raise ApiError(400, "you cannot delete yourself; ask another admin")
        try:
            await storage.write(delete_user, public_id)
        except ValueError as error:
            raise ApiError(400, str(error)) from None
        callers.forget()
        return {"deleted": public_id}

    @routes.delete("/users/{public_id}/keys/{key_id}", summary="Revoke a user's API key")
    async def revoke(
        public_id: str, key_id: str, caller: Caller = Depends(require_admin)
    ) -> dict[str, Any]:
        if not await storage.write(revoke_key, public_id, key_id):
            raise ApiError(404, "there is no such key", code="not_found")
        callers.forget()
        return {"revoked": key_id}

    return routes


def review_router(callers: Callers) -> APIRouter:
    routes = APIRouter(prefix="/feedback")
    storage = callers.storage

    @routes.get("/export/{kind}.jsonl", summary="What was accepted, for training")
    async def export(
        kind: Literal["conversations", "preferences"], caller: Caller = Depends(require_admin)
    ) -> Response:
        made = FeedbackExport(folder=Path())
        gather(made, await storage.read(feedback.accepted), redact=True)
        rows = getattr(made, EXPORTS[kind])
        text = "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows)
        headers = {
            "Cache-Control": "no-store",
            "Content-Disposition": f'attachment; filename="{kind}.jsonl"',
        }
        return Response(text, headers=headers, media_type="application/jsonl")

    @routes.post("/{public_id}", summary="Accept, edit or reject a feedback")
    async def review(
        public_id: str, body: Review, caller: Caller = Depends(require_admin)
    ) -> dict[str, Any]:
        try:
            status = await storage.write(decide, public_id, caller.user_id, body)
        except ValueError as error:
            raise ApiError(400, str(error), "corrected") from None
        return {"id": public_id, "status": status}

    return routes


def existing_user(session: Session, public_id: str) -> UserRow:
    user = users.by_public_id(session, public_id)
    if user is None:
        raise ApiError(404, "there is no such user", code="not_found")
    return user


def change_user(session: Session, public_id: str, body: UserChange) -> None:
    user = existing_user(session, public_id)
    if body.role is not None and body.role != user.role:
        users.set_role(session, user, body.role)
    if body.disabled is not None and body.disabled != user.disabled:
        users.set_disabled(session, user, body.disabled)
    given = body.model_fields_set
    tokens, requests = user.tokens_per_day, user.requests_per_minute
    users.set_limits(
        user,
        tokens_per_day=body.tokens_per_day if "tokens_per_day" in given else tokens,
        requests_per_minute=(
            body.requests_per_minute if "requests_per_minute" in given else requests
        ),
    )


def delete_user(session: Session, public_id: str) -> None:
    users.delete(session, existing_user(session, public_id))


def revoke_key(session: Session, public_id: str, key_id: str) -> bool:
    return api_keys.revoke(session, existing_user(session, public_id).id, key_id)


def decide(session: Session, public_id: str, reviewer_id: int, body: Review) -> str:
    row = feedback.found(session, public_id)
    if row is None:
        raise ApiError(404, "there is no such feedback", code="not_found")
    decision = body.decision
    shown = row.answer if row.corrected is None else row.corrected
    if decision == "accept" and body.corrected is not None and body.corrected != shown:
        decision = "edit"  # accepted as it now stands in the form
    feedback.review(session, row, reviewer_id, decision, body.corrected)
    return row.status
