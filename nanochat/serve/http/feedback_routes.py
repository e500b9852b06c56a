"""What users think of answers: /api/feedback."""

from __future__ import annotations

from dataclasses import asdict
from typing import Any, Literal

from fastapi import APIRouter, Depends
from pydantic import BaseModel, ConfigDict, Field
from sqlalchemy.orm import Session

from nanochat.serve.api_error import ApiError
from nanochat.serve.http.callers import Caller, Callers, current_user
from nanochat.serve.http.error_response import ERRORS
from nanochat.serve.work.asking import history
from nanochat.serve.work.service import Service
from nanochat.store import feedback_rows as feedback
from nanochat.store import messages
from nanochat.store.chat_tables import ConversationRow, FeedbackRow, MessageRow
from nanochat.store.messages import MessageTree

MOST_CHARACTERS = 200_000


class Opinion(BaseModel):
    """A thumb (1, -1, or 0 for none), a comment, the answer as it should be."""

    model_config = ConfigDict(extra="forbid", strict=True)

    message: str = Field(min_length=1, max_length=64)
    vote: Literal[-1, 0, 1] = 0
    comment: str = Field(default="", max_length=10_000)
    corrected: str | None = Field(default=None, max_length=MOST_CHARACTERS)


def feedback_router(service: Service, callers: Callers) -> APIRouter:
    routes = APIRouter(prefix="/api/feedback", tags=["feedback"], responses=ERRORS)
    storage = callers.storage

    @routes.post("", summary="What I think of an answer; replaces what I thought before")
    async def give(body: Opinion, caller: Caller = Depends(current_user)) -> dict[str, Any]:
        row = await storage.write(keep, caller.user_id, body, asdict(service.defaults))
        return {"id": row.public_id, "status": row.status, "vote": row.vote}

    @routes.delete("/{public_id}", summary="Take back what I thought")
    async def take_back(public_id: str, caller: Caller = Depends(current_user)) -> dict[str, Any]:
        if not await storage.write(remove, caller.user_id, public_id):
            raise ApiError(404, "there is no such feedback", code="not_found")
        return {"deleted": public_id}

    return routes


def keep(session: Session, user_id: int, body: Opinion, defaults: dict[str, Any]) -> FeedbackRow:
    """`defaults`: sampling for what the answer's own settings leave out. ApiError 404 for a message
    that is not an answer to this user.
    """
    message = messages.owned(session, user_id, body.message)
    if message is None or message.role != "assistant":
        raise ApiError(404, "there is no such answer", "message", "not_found")
    corrected = body.corrected if body.corrected and body.corrected.strip() else None
    return feedback.give(
        session,
        message=message,
        user_id=user_id,
        prompt=exact_prompt(session, message),
        settings={**defaults, **message.settings},
        vote=body.vote,
        comment=body.comment.strip(),
        corrected=corrected,
    )


def exact_prompt(session: Session, message: MessageRow) -> list[dict[str, Any]]:
    """The messages that led to an answer, as the model got them."""
    conversation = session.get_one(ConversationRow, message.conversation_id)
    path = MessageTree(session, conversation).path_to(message.parent_id)
    rows = messages.by_id(session, path)
    said = history(session, [rows[number] for number in path])
    if conversation.system_prompt:
        said = [{"role": "system", "content": conversation.system_prompt}, *said]
    return said


def remove(session: Session, user_id: int, public_id: str) -> bool:
    row = feedback.found(session, public_id, user_id)
    if row is not None:
        session.delete(row)
    return row is not None
