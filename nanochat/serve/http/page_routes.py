"""The page, the event stream it talks to, and what operators ask: health, statistics, metrics."""

from __future__ import annotations

import time
from collections.abc import AsyncIterator
from functools import partial
from importlib import resources
from typing import Any

from fastapi import APIRouter
from prometheus_client import generate_latest
from prometheus_client.exposition import CONTENT_TYPE_PLAIN_0_0_4
from starlette.requests import Request
from starlette.responses import Response

from nanochat.serve.api_error import ApiError
from nanochat.serve.http.admission import chat_job
from nanochat.serve.http.error_response import ERRORS
from nanochat.serve.http.event_stream import EventStream, sse
from nanochat.serve.http.metering import admit
from nanochat.serve.http.openai_form import DROPPED_HEADER
from nanochat.serve.http.schema import PageRequest
from nanochat.serve.work.job import Job
from nanochat.serve.work.service import Service

PAGES = resources.files("nanochat.serve") / "pages"
LONGEST_NAME = 100  # no file of the page has a longer one, and some file systems take none
MEDIA_TYPES = {
    "html": "text/html",
    "css": "text/css",
    "js": "text/javascript",
    "svg": "image/svg+xml",
}


def page_router(service: Service) -> APIRouter:
    routes = APIRouter(tags=["nanochat"], responses=ERRORS)

    @routes.get("/", include_in_schema=False)
    async def index() -> Response:
        return page("index.html")

    @routes.get("/pages/{name}", include_in_schema=False)
    async def pages(name: str) -> Response:
        return page(name)

    @routes.post("/chat/completions", summary="Answer a conversation, as events")
    async def chat(body: PageRequest, request: Request) -> Response:
        model = service.model(body.model)
        client = request.state.client
        job, dropped_turns = await chat_job(model, body, service.defaults, client)
        await admit(model, job, request)
        headers = {DROPPED_HEADER: str(dropped_turns)} if dropped_turns else {}
        return EventStream(page_events(job, dropped_turns), partial(model.abandon, job), headers)

    @routes.get("/stats", summary="Workers, queue, cache")
    async def stats() -> dict[str, Any]:
        return statistics(service)

    @routes.get("/metrics", summary="The same and more, for Prometheus")
    async def metrics() -> Response:
        text = generate_latest(service.metrics.registry)
        return Response(text, media_type=CONTENT_TYPE_PLAIN_0_0_4)

    return routes


def health_router(service: Service) -> APIRouter:
    """What an orchestrator asks, without a key."""
    routes = APIRouter(tags=["health"], prefix="/health", responses=ERRORS)

    @routes.get("", summary="Whether the server works, and with what")
    async def health() -> dict[str, Any]:
        workers = [worker for model in service.models.values() for worker in model.workers]
        return {
            "status": "ok" if service.ready else "stopping" if service.draining else "degraded",
            "ready": service.ready,
            "models": list(service.models),
            "num_gpus": len(workers),
            "available_workers": sum(worker.alive for worker in workers),
        }

    @routes.get("/live", summary="200 while the process answers at all")
    async def live() -> dict[str, str]:
        return {"status": "ok"}

    @routes.get("/ready", summary="200 while requests are taken, 503 otherwise")
    async def ready() -> dict[str, str]:
        if not service.ready:
            reason = "shutting down" if service.draining else "a model has no working worker"
            raise ApiError(503, f"not ready: {reason}", code="not_ready", retry_after_s=5)
        return {"status": "ok"}

    return routes


def page(name: str) -> Response:
    """A file of the page, as it is now. ApiError 404."""
    file = PAGES / name
    media_type = MEDIA_TYPES.get(name.rpartition(".")[2])
    if media_type is None or len(name) > LONGEST_NAME or not file.is_file():
        raise ApiError(404, "there is no such page", code="not_found")
    headers = {"Cache-Control": "no-cache"}
    return Response(file.read_bytes(), media_type=media_type, headers=headers)


async def page_events(job: Job, dropped_turns: int) -> AsyncIterator[str]:
    """`{"token", "gpu"}` for each piece of text, the calculator's pieces under `python` and
    `python_output`, and at the end `{"done": true}` with how and why.
    """
    assert job.worker is not None
    gpu = job.worker.index
    ending: dict[str, Any] = {"done": True, "finish_reason": "error"}
    try:
        async for _, event in job.events():
            for kind, text in event.pieces:
                token = {"token": text} if kind == "text" else {"token": "", kind: text}
                yield sse({**token, "gpu": gpu})
            ending["finish_reason"] = event.finish_reason
            if event.finish_detail:
                ending["finish_detail"] = event.finish_detail
    except ApiError as error:
        ending["finish_reason"] = "error"
        ending["error"] = error.message
    yield sse({**ending, "dropped_turns": dropped_turns, "tokens": job.completion_tokens})


def statistics(service: Service) -> dict[str, Any]:
    """Workers and what they hold, each model's queue, totals since the start."""
    workers = []
    for name, model in service.models.items():
        for worker in model.workers:
            stats = worker.stats()
            held = {} if stats is None else vars(stats)
            about = {"gpu_id": worker.index, "model": name, "available": worker.alive}
            workers.append({**about, **held})
    models = [
        {
            "model": name,
            "waiting": len(model.queue),
            "running": model.running,
            "slots": model.slots,
        }
        for name, model in service.models.items()
    ]
    return {
        "uptime_s": round(time.monotonic() - service.started_s, 1),
        "total_workers": len(workers),
        "available_workers": sum(worker["available"] for worker in workers),
        "waiting": sum(model["waiting"] for model in models),
        "running": sum(model["running"] for model in models),
        "models": models,
        "workers": workers,
    }
