"""Files for a question, and Markdown as the page shows it: `/api/attachments`, `/api/render`."""

from __future__ import annotations

import asyncio
from typing import Any

from fastapi import APIRouter, Query
from sqlalchemy.orm import Session
from starlette.requests import Request

from nanochat.serve.api_error import ApiError
from nanochat.serve.attached_file import AttachedFile, fit_files, read_attached
from nanochat.serve.http.chat_schema import RenderBody, Who
from nanochat.serve.http.chat_view import file_view
from nanochat.serve.http.error_response import ERRORS
from nanochat.serve.rendering import render_answer
from nanochat.serve.work.asking import SPARE_TOKENS
from nanochat.serve.work.served_model import ModelCard
from nanochat.serve.work.service import Service
from nanochat.serve.work.storage import Storage
from nanochat.store import attachments
from nanochat.store.chat_tables import AttachmentRow
from nanochat.tokenizer.chat_prompt import answer_room


def attachment_router(service: Service, storage: Storage) -> APIRouter:
    routes = APIRouter(prefix="/api", tags=["page"], responses=ERRORS)

    @routes.post("/attachments", summary="A file, as it is, for the next question", status_code=201)
    async def upload(
        request: Request,
        caller: Who,
        name: str = Query(max_length=1000),
        model: str | None = Query(None, max_length=255),
    ) -> dict[str, Any]:
        data = await request.body()
        card = service.model(model or None).card
        max_tokens = service.defaults.max_tokens
        try:
            file, tokens, cut_tokens = await asyncio.to_thread(
                read_and_count, name, data, card, max_tokens
            )
        except ValueError as error:
            raise ApiError(400, str(error), "name", "unreadable_file") from None
        row = await storage.write(save_file, caller.user_id, file, tokens, cut_tokens)
        return file_view(row, file.notes)

    @routes.post("/render", summary="Markdown as clean HTML")
    def render(body: RenderBody, caller: Who) -> dict[str, str]:
        return {"html": render_answer(body.text)}

    return routes


def read_and_count(
    name: str, data: bytes, card: ModelCard, max_tokens: int
) -> tuple[AttachedFile, int, int]:
    """(the file, tokens it takes, tokens that would not fit if it were the only one)."""
    file = read_attached(name, data)
    room = float("inf")
    if card.context:
        room = card.context - answer_room(card.context, max_tokens) - SPARE_TOKENS
    (fitted,) = fit_files(card, [(file.name, file.text)], room)
    return file, fitted.tokens, fitted.cut_tokens


def save_file(
    session: Session, user_id: int, file: AttachedFile, tokens: int, cut_tokens: int
) -> AttachmentRow:
    return attachments.add(
        session,
        user_id,
        name=file.name,
        media_type=file.media_type,
        text=file.text,
        tokens=tokens,
        cut_tokens=cut_tokens,
        size_bytes=file.size_bytes,
    )
