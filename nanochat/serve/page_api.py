"""The page, the event stream it talks to, and what operators ask: health, statistics, metrics."""

from __future__ import annotations

import time
from collections.abc import AsyncIterator, Callable
from functools import partial
from importlib import resources
from typing import Any

from fastapi import APIRouter
from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from nanochat.serve.answer import Answer
from nanochat.serve.errors import ApiError
from nanochat.serve.lane import Job, Lane
from nanochat.serve.metrics import CONTENT_TYPE
from nanochat.serve.openai_api import DROPPED_HEADER
from nanochat.serve.schema import PageRequest, validated
from nanochat.serve.service import Service
from nanochat.serve.wire import EventStream, event, read_json, unless_gone

MODULES = "chat clipboard conversation follow inline markdown message patch stream".split()
PAGES = {
    "index.html": "text/html; charset=utf-8",
    "style.css": "text/css; charset=utf-8",
    "icon.svg": "image/svg+xml",
    **{f"{module}.js": "text/javascript; charset=utf-8" for module in MODULES},
}


def router(service: Service, body_of: Callable[[Any], dict[str, Any]]) -> APIRouter:
    """The routes. `body_of` describes a request body for the OpenAPI document."""
    routes = APIRouter(tags=["nanochat"])

    @routes.get("/", include_in_schema=False)
    async def index() -> Response:
        return page("index.html")

    @routes.get("/pages/{name}", include_in_schema=False)
    async def pages(name: str) -> Response:
        if name not in PAGES:
            raise ApiError(404, "there is no such page", code="not_found")
        return page(name)

    @routes.post(
        "/chat/completions",
        summary="Answer a conversation, as events",
        openapi_extra=body_of(PageRequest),
    )
    async def chat(request: Request) -> Response:
        body = validated(PageRequest, await read_json(request))
        lane = service.lane(body.model)
        job, dropped = await service.chat_job(lane, body, request.state.client)
        await unless_gone(lane.admit(job), request.receive)
        headers = {DROPPED_HEADER: str(dropped)} if dropped else {}
        return EventStream(tokens(lane, job, dropped), partial(lane.abandon, job), headers)

    @routes.get("/stats", summary="Workers, queue, cache")
    async def stats() -> Response:
        return JSONResponse(statistics(service))

    @routes.get("/metrics", summary="The same and more, for Prometheus")
    async def metrics() -> Response:
        return Response(service.metrics.text(service.gauges()), media_type=CONTENT_TYPE)

    return routes


def health_router(service: Service) -> APIRouter:
    """What an orchestrator asks, without a key."""
    routes = APIRouter(tags=["health"])

    @routes.get("/health", summary="Whether the server works, and with what")
    async def health() -> Response:
        workers = [worker for lane in service.lanes.values() for worker in lane.workers]
        alive = sum(worker.alive for worker in workers)
        status = "ok" if service.ready else "stopping" if service.draining else "degraded"
        about = {"status": status, "ready": service.ready, "models": list(service.lanes)}
        return JSONResponse({**about, "num_gpus": len(workers), "available_workers": alive})

    @routes.get("/health/live", summary="200 while the process answers at all")
    async def live() -> Response:
        return JSONResponse({"status": "ok"})

    @routes.get("/health/ready", summary="200 while requests are taken, 503 otherwise")
    async def ready() -> Response:
        if not service.ready:
            reason = "shutting down" if service.draining else "a model has no working worker"
            raise ApiError(503, f"not ready: {reason}", code="not_ready", retry_after_s=5)
        return JSONResponse({"status": "ok"})

    return routes


def page(name: str) -> Response:
    content = (resources.files("nanochat.serve") / "pages" / name).read_bytes()
    return Response(content, media_type=PAGES[name], headers={"Cache-Control": "no-cache"})


async def tokens(lane: Lane, job: Job, dropped_turns: int) -> AsyncIterator[str]:
    """`{"token", "gpu"}` for each piece of text, the calculator's pieces under `python` and
    `python_output`, and at the end `{"done": true}` with how and why.
    """
    answer = Answer(lane.info.tokenizer)
    assert job.worker is not None
    gpu = job.worker.index
    async for update in job.events():
        delta = answer.add(update)
        if delta.text:
            yield event({"token": delta.text, "gpu": gpu})
        for part in delta.parts:
            yield event({"token": "", "gpu": gpu, part["type"]: part["text"]})
    ending = {
        "finish_reason": answer.finish_reason,
        "dropped_turns": dropped_turns,
        "tokens": answer.n_tokens,
    }
    if answer.finish_detail:
        ending["finish_detail"] = answer.finish_detail
    if answer.finish_reason == "error":
        ending["error"] = answer.finish_detail or "the engine failed"
    yield event({"done": True, **ending})


def statistics(service: Service) -> dict[str, Any]:
    """Workers and what they hold, each model's queue, totals since the start."""
    workers, models = [], []
    for name, lane in service.lanes.items():
        models.append(
            {
                "model": name,
                "waiting": len(lane.queue),
                "running": lane.running,
                "slots": lane.slots,
            }
        )
        for worker in lane.workers:
            stats = worker.stats()
            held = {} if stats is None else vars(stats)
            workers.append(
                {"gpu_id": worker.index, "model": name, "available": worker.alive, **held}
            )
    return {
        "uptime_s": round(time.monotonic() - service.started_s, 1),
        "total_workers": len(workers),
        "available_workers": sum(worker["available"] for worker in workers),
        "waiting": sum(model["waiting"] for model in models),
        "running": sum(model["running"] for model in models),
        "models": models,
        "workers": workers,
    }
