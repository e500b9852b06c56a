"""Stored conversations of whoever asks: list, open, change, remove, show to others, export, import.

An id that is not the caller's answers 404, like one that does not exist.
"""

from __future__ import annotations

import json
import re
from typing import Any
from urllib.parse import quote

from fastapi import APIRouter, Query
from sqlalchemy.orm import Session
from starlette.responses import Response

from nanochat.serve.api_error import ApiError
from nanochat.serve.http import chat_view
from nanochat.serve.http.chat_schema import (
    ActiveBody,
    ConversationBody,
    ConversationChange,
    ExportedChats,
    ShareBody,
    Who,
)
from nanochat.serve.http.error_response import ERRORS
from nanochat.serve.http.folder_routes import owned_folder
from nanochat.serve.work.asking import not_found, owned
from nanochat.serve.work.storage import Storage
from nanochat.store import chats, shares, transfer
from nanochat.store.chat_tables import ConversationRow
from nanochat.store.messages import MessageTree

MOST_LISTED = 200


def conversation_router(storage: Storage) -> APIRouter:
    routes = APIRouter(prefix="/api/conversations", tags=["page"], responses=ERRORS)
    add_file_routes(routes, storage)  # before the ones that take any id

    @routes.get("", summary="The list, newest first; `search` looks into messages too")
    async def listed(
        caller: Who,
        search: str = Query("", max_length=200),
        folder: str | None = Query(None, max_length=64),
        after: str | None = Query(None, max_length=64),
        limit: int = Query(50, ge=1, le=MOST_LISTED),
    ) -> dict[str, Any]:
        rows = await storage.read(
            chats.listed,
            caller.user_id,
            search=search.replace("\0", ""),
            folder=folder,
            after=after,
            limit=limit + 1,
        )
        entries = [chat_view.list_entry(row) for row in rows]
        return {"conversations": entries[:limit], "more": len(entries) > limit}

    @routes.post("", summary="A new one", status_code=201)
    async def create(body: ConversationBody, caller: Who) -> dict[str, Any]:
        return await storage.write(create_conversation, caller.user_id, body)

    @routes.get("/{public_id}", summary="One with the end of what was said")
    async def opened(
        public_id: str,
        caller: Who,
        before: str | None = Query(None, max_length=64),
    ) -> dict[str, Any]:
        return await storage.read(open_conversation, caller.user_id, public_id, before)

    @routes.patch("/{public_id}", summary="Title, model, system prompt, settings, folder")
    async def change(public_id: str, body: ConversationChange, caller: Who) -> dict[str, Any]:
        return await storage.write(change_conversation, caller.user_id, public_id, body)

    @routes.delete("/{public_id}", summary="Remove it", status_code=204)
    async def remove(public_id: str, caller: Who) -> None:
        await storage.write(remove_conversation, caller.user_id, public_id)

    @routes.put("/{public_id}/active", summary="Show another version of a message")
    async def activate(public_id: str, body: ActiveBody, caller: Who) -> dict[str, Any]:
        return await storage.write(show_version, caller.user_id, public_id, body.message)

    add_share_routes(routes, storage)
    return routes


def add_file_routes(routes: APIRouter, storage: Storage) -> None:
    @routes.get("/export", summary="All of them as one JSON file")
    async def export_all(caller: Who) -> Response:
        every = await storage.read(export_everything, caller.user_id)
        return download(exported_file(every), "nanochat-conversations.json", "application/json")

    @routes.post("/import", summary="Read back what was exported")
    async def read_back(body: ExportedChats, caller: Who) -> dict[str, Any]:
        try:
            ids = await storage.write(import_conversations, caller.user_id, body)
        except ValueError as error:
            raise ApiError(400, str(error)) from None
        return {"imported": ids}

    @routes.get("/{public_id}/export", summary="One as a file: form=markdown or json")
    async def export(
        public_id: str,
        caller: Who,
        form: str = Query("json", pattern="^(json|markdown)$"),
    ) -> Response:
        data, name, media_type = await storage.read(export_one, caller.user_id, public_id, form)
        return download(data, name, media_type)


def add_share_routes(routes: APIRouter, storage: Storage) -> None:
    @routes.put("/{public_id}/share", summary="Show it to these people and groups, by a link")
    async def share(public_id: str, body: ShareBody, caller: Who) -> dict[str, Any]:
        return await storage.write(share_conversation, caller.user_id, public_id, body)

    @routes.delete("/{public_id}/share", summary="Show it to nobody any more", status_code=204)
    async def unshare(public_id: str, caller: Who) -> None:
        await storage.write(unshare_conversation, caller.user_id, public_id)


def shared_router(storage: Storage) -> APIRouter:
    """What others show to the caller."""
    routes = APIRouter(prefix="/api/shared", tags=["page"], responses=ERRORS)

    @routes.get("/{share_id}", summary="A conversation that somebody shows to the caller")
    async def shared(
        share_id: str,
        caller: Who,
        before: str | None = Query(None, max_length=64),
    ) -> dict[str, Any]:
        return await storage.read(open_shared, caller.user_id, share_id, before)

    return routes


# --- what the routes do, on a session


def folder_id(session: Session, user_id: int, public_id: str | None) -> int | None:
    return owned_folder(session, user_id, public_id).id if public_id else None


def create_conversation(session: Session, user_id: int, body: ConversationBody) -> dict[str, Any]:
    conversation = chats.add(
        session,
        user_id,
        title=chats.clean_title(body.title),
        model=body.model or None,
        system_prompt=body.system_prompt.replace("\0", ""),
        settings=body.settings.model_dump(exclude_none=True),
        folder_id=folder_id(session, user_id, body.folder),
    )
    return {**chat_view.about(session, conversation), "earlier": 0, "messages": []}


def change_conversation(
    session: Session, user_id: int, public_id: str, body: ConversationChange
) -> dict[str, Any]:
    conversation = owned(session, user_id, public_id)
    if body.title is not None:
        conversation.title = chats.clean_title(body.title)
    if body.model is not None:
        conversation.model = body.model[:255] or None
    if body.system_prompt is not None:
        conversation.system_prompt = body.system_prompt.replace("\0", "")
    if body.settings is not None:
        conversation.settings = body.settings.model_dump(exclude_none=True)
    if body.folder is not None:
        conversation.folder_id = folder_id(session, user_id, body.folder)
    session.flush()
    return chat_view.about(session, conversation)


def open_conversation(
    session: Session, user_id: int, public_id: str, before: str | None
) -> dict[str, Any]:
    conversation = owned(session, user_id, public_id)
    return chat_view.whole_conversation(session, conversation, user_id, before)


def open_shared(
    session: Session, user_id: int, share_id: str, before: str | None
) -> dict[str, Any]:
    conversation = shares.readable(session, user_id, share_id)
    if conversation is None:
        raise not_found("shared conversation")
    view = chat_view.whole_conversation(session, conversation, user_id, before)
    return {**view, "owner": shares.owner_name(session, conversation)}


def remove_conversation(session: Session, user_id: int, public_id: str) -> None:
    chats.delete(session, owned(session, user_id, public_id))


def share_conversation(
    session: Session, user_id: int, public_id: str, body: ShareBody
) -> dict[str, Any]:
    conversation = owned(session, user_id, public_id)
    try:
        shares.share(session, conversation, body.people, body.groups)
    except ValueError as error:
        raise ApiError(400, str(error), "people") from None
    view = chat_view.share_view(session, conversation)
    assert view is not None
    return view


def unshare_conversation(session: Session, user_id: int, public_id: str) -> None:
    shares.end(session, owned(session, user_id, public_id))


def export_one(session: Session, user_id: int, public_id: str, form: str) -> tuple[str, str, str]:
    """(text, file name, media type)."""
    conversation = owned(session, user_id, public_id)
    name = re.sub(r"[^\w.-]+", "-", conversation.title).strip("-")[:60] or "conversation"
    if form == "markdown":
        text = transfer.as_markdown(session, conversation)
        return text, f"{name}.md", "text/markdown; charset=utf-8"
    data = exported_file([transfer.exported(session, conversation)])
    return data, f"{name}.json", "application/json"


def show_version(session: Session, user_id: int, public_id: str, message: str) -> dict[str, Any]:
    """The conversation with that message in it, and the newest of what follows it."""
    conversation = owned(session, user_id, public_id)
    tree = MessageTree(session, conversation)
    if message not in tree.id_of:
        raise not_found("message")
    conversation.active_leaf_id = tree.end_of(tree.id_of[message])
    session.flush()
    return chat_view.whole_conversation(session, conversation, user_id)


def export_everything(session: Session, user_id: int) -> list[dict[str, Any]]:
    every = chats.all_of(session, user_id)
    return [transfer.exported(session, conversation) for conversation in every]


def import_conversations(session: Session, user_id: int, body: ExportedChats) -> list[str]:
    made: list[ConversationRow] = []
    for chat in body.conversations:
        made.append(transfer.imported(session, user_id, chat.model_dump()))
    return [conversation.public_id for conversation in made]


def exported_file(conversations: list[dict[str, Any]]) -> str:
    whole = {"nanochat_export": transfer.VERSION, "conversations": conversations}
    return json.dumps(whole, ensure_ascii=False, indent=1)


def download(text: str, name: str, media_type: str) -> Response:
    headers = {"Content-Disposition": f"attachment; filename*=UTF-8''{quote(name)}"}
    return Response(text.encode("utf-8", "replace"), media_type=media_type, headers=headers)
