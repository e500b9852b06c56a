"""The pages of the administration: /admin/usage, /admin/users, /admin/feedback, /admin/models."""

from __future__ import annotations

import time
from typing import Any, Literal

from fastapi import APIRouter, Depends
from sqlalchemy.orm import Session
from starlette.requests import Request
from starlette.responses import RedirectResponse, Response

from nanochat.serve import admin_html as html
from nanochat.serve.api_error import ApiError
from nanochat.serve.http.callers import Caller, Callers, require_admin
from nanochat.serve.work.model_loader import loadable
from nanochat.serve.work.service import Service
from nanochat.store import api_keys, usage, users
from nanochat.store import feedback_rows as feedback
from nanochat.store.account_tables import ApiKeyRow, UserRow

DAY_S = 86_400
CARDS = 20  # feedback on one page


def admin_page_router(service: Service, callers: Callers) -> APIRouter:
    routes = APIRouter(prefix="/admin", include_in_schema=False)
    storage = callers.storage

    @routes.get("")
    async def first(request: Request, caller: Caller = Depends(require_admin)) -> Response:
        return RedirectResponse(f"{request.scope.get('root_path', '')}/admin/usage", 303)

    @routes.get("/usage")
    async def usage_page(
        days: int = 30, rate: str = "", caller: Caller = Depends(require_admin)
    ) -> Response:
        days = min(max(days, 1), 3660)
        price = price_of(rate)
        totals, costs = await storage.read(used, time.time() - DAY_S * days, price or 0.0)
        return page("usage", caller, html.usage_body(totals, costs, days, price))

    @routes.get("/users")
    async def users_page(caller: Caller = Depends(require_admin)) -> Response:
        rows = await storage.read(everybody)
        return page("users", caller, html.users_body(rows, caller.public_id))

    @routes.get("/feedback")
    async def feedback_page(
        status: Literal["new", "accepted", "edited", "rejected"] = "new",
        offset: int = 0,
        caller: Caller = Depends(require_admin),
    ) -> Response:
        offset = min(max(offset, 0), 10**6)
        rows = await storage.read(feedback.queue, status, CARDS, offset)
        counts = await storage.read(feedback.counts)
        return page("feedback", caller, html.feedback_body(rows, counts, status, offset))

    @routes.get("/models")
    async def models_page(caller: Caller = Depends(require_admin)) -> Response:
        served = served_models(service)
        names = {model["name"] for model in served}
        names |= {f"{model['name']}:{model['step']}" for model in served}
        there = [] if service.loader is None else [n for n in loadable() if n not in names]
        return page("models", caller, html.models_body(served, there))

    return routes


def page(place: str, caller: Caller, body: str) -> Response:
    text = html.whole_page(place, caller.csrf, body)
    return Response(text, headers={"Cache-Control": "no-store"}, media_type="text/html")


def price_of(text: str) -> float | None:
    """ApiError 400 for what is no price."""
    if not text.strip():
        return None
    try:
        price = float(text.replace(",", "."))
    except ValueError:
        price = -1.0
    if not 0 <= price < 1e6:
        raise ApiError(400, f"rate={text[:40]}: must be an amount, such as 2.50", "rate")
    return price or None


def used(
    session: Session, since: float, rate: float
) -> tuple[dict[str, Any], dict[str, list[float]]]:
    """(totals, costs) by user, model and day."""
    first = usage.first_since(session, since)
    hours = 0.0 if first is None else (time.time() - first) / 3600
    totals = {by: usage.totals(session, since, by) for by in ("user", "model", "day")}
    costs = {
        by: usage.machine_cost(rows, hours=hours, hourly_rate=rate) for by, rows in totals.items()
    }
    return totals, costs


def everybody(session: Session) -> list[tuple[UserRow, int, list[ApiKeyRow]]]:
    """(user, tokens used today, keys that work)."""
    return [
        (user, usage.used_today(session, user.id), api_keys.valid(session, user.id))
        for user in users.listed(session)
    ]


def served_models(service: Service) -> list[dict[str, Any]]:
    """What is served and what is leaving, for pages and programs."""
    default = service.default_name
    found = []
    for model in (*service.models.values(), *service.leaving):
        served = service.models.get(model.card.name) is model
        found.append(
            {
                "name": model.card.name,
                "step": model.card.step,
                "remote": model.card.remote,
                "default": served and model.card.name == default,
                "state": "served" if served else "finishing",
                "running": model.running,
                "waiting": len(model.queue),
            }
        )
    return found
