"""The OpenAI-compatible endpoints: /v1/models, /v1/chat/completions, /v1/completions."""

from __future__ import annotations

from functools import partial
from typing import Any

from fastapi import APIRouter
from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from nanochat.serve.http.admission import chat_job, completion_job
from nanochat.serve.http.error_response import ERRORS
from nanochat.serve.http.event_stream import EventStream, unless_gone
from nanochat.serve.http.metering import admit
from nanochat.serve.http.openai_form import ChatAnswers, TextAnswers
from nanochat.serve.http.schema import ChatRequest, CompletionRequest
from nanochat.serve.work.served_model import ServedModel
from nanochat.serve.work.service import Service


def openai_router(service: Service) -> APIRouter:
    routes = APIRouter(prefix="/v1", tags=["OpenAI"], responses=ERRORS)

    @routes.get("/models", summary="The models served here")
    async def models() -> dict[str, Any]:
        return {"object": "list", "data": [model_entry(model) for model in service.models.values()]}

    @routes.get("/models/{name:path}", summary="One of them")
    async def model(name: str) -> dict[str, Any]:
        return model_entry(service.model(name))

    @routes.post("/chat/completions", summary="Answer a conversation")
    async def chat_completions(body: ChatRequest, request: Request) -> Response:
        model = service.model(body.model)
        client = request.state.client
        job, dropped_turns = await chat_job(model, body, service.defaults, client)
        return await respond(ChatAnswers(model, job, body, dropped_turns), request)

    @routes.post("/completions", summary="Continue a text")
    async def completions(body: CompletionRequest, request: Request) -> Response:
        model = service.model(body.model)
        job = await completion_job(model, body, service.defaults, request.state.client)
        return await respond(TextAnswers(model, job, body), request)

    return routes


def model_entry(model: ServedModel) -> dict[str, Any]:
    card = model.card
    return {
        "id": card.name,
        "object": "model",
        "created": card.created,
        "owned_by": "nanochat",
        "context_length": card.context,
        "step": card.step,
    }


async def respond(answers: ChatAnswers | TextAnswers, request: Request) -> Response:
    """Wait for the job's turn, then the whole answer or the stream of its pieces."""
    model, job = answers.model, answers.job
    await admit(model, job, request)
    close = partial(model.abandon, job)
    if answers.body.stream:
        return EventStream(answers.stream(), close, answers.headers)
    try:
        return JSONResponse(await unless_gone(answers.whole(), request), headers=answers.headers)
    finally:
        close()
