"""The web application: routes, errors and what every request passes, over a service."""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager

from fastapi import Depends, FastAPI
from fastapi.security import HTTPBearer

from nanochat import __version__
from nanochat.serve.http.body import BodyReader
from nanochat.serve.http.error_response import add_error_handlers
from nanochat.serve.http.gate import Gate, LocalCORS
from nanochat.serve.http.openai_form import DROPPED_HEADER
from nanochat.serve.http.openai_routes import openai_router
from nanochat.serve.http.page_routes import health_router, page_router
from nanochat.serve.work.service import Service


def build_app(
    service: Service, keys: Sequence[str] = (), allowed_origins: Sequence[str] = ()
) -> FastAPI:
    """The application. It starts the service's workers when the server starts and stops them when
    it ends. `keys`: requests need one of them; `allowed_origins`: see Gate.
    """

    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        service.start()
        yield
        service.stop()

    app = FastAPI(
        title="nanochat", version=__version__, lifespan=lifespan, docs_url=None, redoc_url=None
    )
    # says in the OpenAPI document what the gate asks for
    needs_key = [Depends(HTTPBearer(auto_error=False))] if keys else []
    app.include_router(page_router(service), dependencies=needs_key)
    app.include_router(openai_router(service), dependencies=needs_key)
    app.include_router(health_router(service))
    add_error_handlers(app)
    # a request passes them from the last to the first
    app.add_middleware(BodyReader)
    app.add_middleware(Gate, keys=keys, allowed_origins=allowed_origins, metrics=service.metrics)
    app.add_middleware(
        LocalCORS,
        allow_origins=allowed_origins,
        allow_methods=["GET", "HEAD", "POST"],
        allow_headers=["*"],
        allow_private_network=True,
        expose_headers=[DROPPED_HEADER, "Retry-After"],
    )
    return app
