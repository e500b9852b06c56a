"""The web application: routes, errors and what every request passes, over a service."""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager

from fastapi import APIRouter, Depends, FastAPI
from fastapi.security import HTTPBearer

from nanochat import __version__
from nanochat.serve.http.admin_pages import admin_page_router
from nanochat.serve.http.admin_routes import admin_router
from nanochat.serve.http.body import BodyReader
from nanochat.serve.http.callers import Callers
from nanochat.serve.http.chat_routes import chat_router
from nanochat.serve.http.error_response import add_error_handlers
from nanochat.serve.http.feedback_routes import feedback_router
from nanochat.serve.http.gate import Gate, LocalCORS
from nanochat.serve.http.login_routes import BUTTON, login_router
from nanochat.serve.http.metering import Metering
from nanochat.serve.http.myself_routes import key_router, myself_router
from nanochat.serve.http.oidc_settings import OIDCSettings
from nanochat.serve.http.openai_form import DROPPED_HEADER
from nanochat.serve.http.openai_routes import openai_router
from nanochat.serve.http.page_routes import health_router, page_router
from nanochat.serve.http.password_check import PasswordCheck
from nanochat.serve.http.request_log import RequestLog
from nanochat.serve.work.service import Service
from nanochat.serve.work.storage import Storage


def build_app(
    service: Service,
    keys: Sequence[str] = (),
    allowed_origins: Sequence[str] = (),
    *,
    storage: Storage | None = None,
    server_name: str = "",
    oidc: OIDCSettings | None = None,
) -> FastAPI:
    """The application. It starts the service's workers when the server starts and stops them when
    it ends. `keys`: requests need one of them; `allowed_origins`: see Gate. With `storage` there
    are accounts, limits and records; `server_name` tells servers on one database apart; `oidc`
    names a provider to sign in with.
    """
    callers = None if storage is None else Callers(storage, keys, oidc is not None)

    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        service.start()
        if storage is not None:
            storage.start()
        yield
        service.stop()
        if storage is not None:
            storage.stop()

    app = FastAPI(
        title="nanochat", version=__version__, lifespan=lifespan, docs_url=None, redoc_url=None
    )
    # says in the OpenAPI document what the gate asks for
    needs_key = [Depends(HTTPBearer(auto_error=False))] if keys else []
    app.include_router(page_router(service), dependencies=needs_key)
    app.include_router(openai_router(service), dependencies=needs_key)
    app.include_router(health_router(service))
    if callers is not None:
        app.state.metering = Metering(callers.storage, server_name)
        app.include_router(account_router(callers, oidc), dependencies=needs_key)
        app.include_router(feedback_router(service, callers), dependencies=needs_key)
        app.include_router(admin_page_router(service, callers))
        administration = admin_router(service, callers, PasswordCheck())
        app.include_router(administration, dependencies=needs_key)
        app.include_router(chat_router(service, callers.storage), dependencies=needs_key)
    add_error_handlers(app)
    # a request passes them from the last to the first
    app.add_middleware(BodyReader)
    app.add_middleware(
        Gate,
        keys=keys,
        allowed_origins=allowed_origins,
        metrics=service.metrics,
        callers=callers,
    )
    app.add_middleware(
        LocalCORS,
        allow_origins=allowed_origins,
        allow_methods=["GET", "HEAD", "POST"],
        allow_headers=["*"],
        allow_private_network=True,
        expose_headers=[DROPPED_HEADER, "Retry-After"],
    )
    app.add_middleware(RequestLog)
    return app


def account_router(callers: Callers, oidc: OIDCSettings | None) -> APIRouter:
    """Signing in, and what people know and change of themselves."""
    routes, passwords = APIRouter(), PasswordCheck()
    routes.include_router(login_router(callers, passwords, None if oidc is None else BUTTON))
    if oidc is not None:
        from nanochat.serve.http.oidc_routes import oidc_router  # needs the extra oidc

        routes.include_router(oidc_router(callers, oidc))
    routes.include_router(myself_router(callers, passwords))
    routes.include_router(key_router(callers))
    return routes
