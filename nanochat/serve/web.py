"""The web application: routes, errors, and the OpenAPI document, over a service."""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from typing import Any

from fastapi import FastAPI
from fastapi.openapi.utils import get_openapi
from pydantic import BaseModel
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from nanochat import __version__
from nanochat.serve import openai_api, page_api
from nanochat.serve.errors import ApiError
from nanochat.serve.gate import Gate
from nanochat.serve.schema import ChatRequest, CompletionRequest, PageRequest
from nanochat.serve.service import Service
from nanochat.serve.wire import Gone

REFERENCE = "#/components/schemas/{model}"
BODIES = (ChatRequest, CompletionRequest, PageRequest)
CLIENT_CLOSED = 499


def build_app(service: Service, keys: Sequence[str] = ()) -> FastAPI:
    """The application. It starts the service's workers when the server starts and stops them when
    it ends.
    """

    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        service.start()
        yield
        service.stop()

    app = FastAPI(
        title="nanochat", version=__version__, lifespan=lifespan, docs_url=None, redoc_url=None
    )
    for router in (
        page_api.router(service, body_of),
        page_api.health_router(service),
        openai_api.router(service, body_of),
    ):
        app.include_router(router)
    app.add_exception_handler(ApiError, on_api_error)
    app.add_exception_handler(HTTPException, on_http_error)
    app.add_exception_handler(Gone, on_gone)
    app.add_exception_handler(Exception, on_failure)
    app.add_middleware(Gate, keys=list(keys), metrics=service.metrics)
    app.openapi = lambda: document(app, bool(keys))  # type: ignore[method-assign]
    return app


async def on_api_error(request: Request, error: Exception) -> Response:
    assert isinstance(error, ApiError)
    return JSONResponse(error.body, error.status, headers=error.headers)


async def on_http_error(request: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException)
    said = {404: "there is nothing at this path", 405: f"this path does not take {request.method}"}
    plain = ApiError(error.status_code, said.get(error.status_code, str(error.detail)))
    return JSONResponse(plain.body, plain.status, headers=dict(error.headers or {}))


async def on_gone(request: Request, error: Exception) -> Response:
    return Response(status_code=CLIENT_CLOSED)  # nobody reads it; it is counted


async def on_failure(request: Request, error: Exception) -> Response:
    failure = ApiError(500, f"the server failed: {type(error).__name__}", code="internal_error")
    return JSONResponse(failure.body, 500)


def body_of(kind: type[BaseModel]) -> dict[str, Any]:
    """A request body and the possible errors, as the OpenAPI document has them."""
    schema = {"$ref": REFERENCE.format(model=kind.__name__)}
    errors = {
        "400": "The request says something that cannot be done.",
        "401": "An API key is needed.",
        "404": "No such model.",
        "413": "The body is too large.",
        "429": "Too many requests are waiting; Retry-After says when to come back.",
        "503": "The server is shutting down.",
    }
    error_schema = {"application/json": {"schema": {"$ref": REFERENCE.format(model="Error")}}}
    return {
        "requestBody": {"required": True, "content": {"application/json": {"schema": schema}}},
        "responses": {
            "200": {
                "description": "The answer, or a stream of events.",
                "content": {"application/json": {}},
            },
            **{
                status: {"description": about, "content": error_schema}
                for status, about in errors.items()
            },
        },
    }


def document(app: FastAPI, with_keys: bool) -> dict[str, Any]:
    """The OpenAPI document: the bodies are described by the classes that check them."""
    if app.openapi_schema is not None:
        return app.openapi_schema
    result = get_openapi(title=app.title, version=app.version, routes=app.routes)
    components = result.setdefault("components", {})
    schemas = components.setdefault("schemas", {})
    for kind in BODIES:
        schema = kind.model_json_schema(ref_template=REFERENCE)
        schemas.update(schema.pop("$defs", {}))
        schemas[kind.__name__] = schema
    text = {"type": ["string", "null"]}
    about = {"message": {"type": "string"}, "type": {"type": "string"}, "param": text, "code": text}
    error = {"type": "object", "required": list(about), "properties": about}
    schemas["Error"] = {"type": "object", "required": ["error"], "properties": {"error": error}}
    if with_keys:
        components["securitySchemes"] = {"key": {"type": "http", "scheme": "bearer"}}
        result["security"] = [{"key": []}]
    app.openapi_schema = result
    return result
