"""Folders of whoever asks: `/api/folders`."""

from __future__ import annotations

from typing import Any

from fastapi import APIRouter
from sqlalchemy.orm import Session

from nanochat.serve.api_error import ApiError
from nanochat.serve.http.chat_schema import FolderBody, Who
from nanochat.serve.http.error_response import ERRORS
from nanochat.serve.work.asking import not_found
from nanochat.serve.work.storage import Storage
from nanochat.store import folders
from nanochat.store.chat_tables import FolderRow


def folder_router(storage: Storage) -> APIRouter:
    routes = APIRouter(prefix="/api/folders", tags=["page"], responses=ERRORS)

    @routes.get("", summary="All of them, by name")
    async def listed(caller: Who) -> dict[str, Any]:
        rows = await storage.read(folders.listed, caller.user_id)
        return {"folders": [folder_view(row) for row in rows]}

    @routes.post("", summary="A new one, or the one of that name", status_code=201)
    async def create(body: FolderBody, caller: Who) -> dict[str, Any]:
        try:
            return folder_view(await storage.write(folders.named, caller.user_id, body.name))
        except ValueError as error:
            raise ApiError(400, str(error), "name") from None

    @routes.patch("/{public_id}", summary="Rename it")
    async def rename(public_id: str, body: FolderBody, caller: Who) -> dict[str, Any]:
        return await storage.write(rename_folder, caller.user_id, public_id, body.name)

    @routes.delete("/{public_id}", summary="Remove it; what was in it stays", status_code=204)
    async def remove(public_id: str, caller: Who) -> None:
        await storage.write(remove_folder, caller.user_id, public_id)

    return routes


def owned_folder(session: Session, user_id: int, public_id: str) -> FolderRow:
    """ApiError 404 for any other."""
    folder = folders.found(session, user_id, public_id)
    if folder is None:
        raise not_found("folder")
    return folder


def rename_folder(session: Session, user_id: int, public_id: str, name: str) -> dict[str, Any]:
    folder = owned_folder(session, user_id, public_id)
    try:
        folders.rename(session, folder, name)
    except ValueError as error:
        raise ApiError(400, str(error), "name") from None
    return folder_view(folder)


def remove_folder(session: Session, user_id: int, public_id: str) -> None:
    folders.delete(session, owned_folder(session, user_id, public_id))


def folder_view(row: FolderRow) -> dict[str, Any]:
    return {"id": row.public_id, "name": row.name}
