"""Everything that the page asks about conversations."""

from __future__ import annotations

from fastapi import APIRouter

from nanochat.serve.http.ask_routes import ask_router
from nanochat.serve.http.attachment_routes import attachment_router
from nanochat.serve.http.conversation_routes import conversation_router, shared_router
from nanochat.serve.http.folder_routes import folder_router
from nanochat.serve.work.service import Service
from nanochat.serve.work.storage import Storage


def chat_router(service: Service, storage: Storage) -> APIRouter:
    routes = APIRouter()
    for router in (
        conversation_router(storage),
        ask_router(service, storage),
        shared_router(storage),
        folder_router(storage),
        attachment_router(service, storage),
    ):
        routes.include_router(router)
    return routes
