"""Errors in the form that OpenAI's clients understand, wherever they come from: one body for all.

{"error": {"message": ..., "type": ..., "param": ..., "code": ...}}
"""

from __future__ import annotations

import math
import re
from typing import Any

from fastapi import FastAPI
from fastapi.exceptions import RequestValidationError
from pydantic import BaseModel
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect, Request
from starlette.responses import JSONResponse, Response

from nanochat.serve.api_error import ApiError

CLIENT_CLOSED = 499
TYPES = {
    401: "authentication_error",
    403: "permission_error",
    404: "not_found_error",
    429: "rate_limit_error",
}


class ErrorDetail(BaseModel):
    """What is wrong, for people and for programs; `param` is the field it is about."""

    message: str
    type: str
    param: str | None = None
    code: str | None = None


class ErrorBody(BaseModel):
    """The body of every answer that is not 2xx."""

    error: ErrorDetail


ERRORS: dict[int | str, dict[str, Any]] = {
    "4XX": {"model": ErrorBody, "description": "The request is wrong, or has to come back later."},
    "5XX": {"model": ErrorBody, "description": "The server failed, or is shutting down."},
}


def error_body(error: ApiError) -> dict[str, Any]:
    usual = "server_error" if error.status >= 500 else "invalid_request_error"
    # what a client sent may be quoted in it, half a surrogate pair included
    message = error.message.encode("utf-8", "backslashreplace").decode()
    detail = ErrorDetail(
        message=message,
        type=TYPES.get(error.status, usual),
        param=error.param,
        code=error.code,
    )
    return ErrorBody(error=detail).model_dump()


def error_response(error: ApiError) -> Response:
    headers = {}
    if error.retry_after_s is not None:
        headers["Retry-After"] = str(max(1, math.ceil(error.retry_after_s)))
    if error.status == 401:
        headers["WWW-Authenticate"] = "Bearer"
    return JSONResponse(error_body(error), error.status, headers=headers)


def add_error_handlers(app: FastAPI) -> None:
    """Whatever is raised while a request is answered becomes an answer."""
    app.add_exception_handler(ApiError, on_api_error)
    app.add_exception_handler(RequestValidationError, on_invalid_body)
    app.add_exception_handler(HTTPException, on_http_error)
    app.add_exception_handler(ClientDisconnect, on_client_gone)
    app.add_exception_handler(Exception, on_failure)


async def on_api_error(request: Request, error: Exception) -> Response:
    assert isinstance(error, ApiError)
    return error_response(error)


async def on_invalid_body(request: Request, error: Exception) -> Response:
    assert isinstance(error, RequestValidationError)
    return error_response(invalid_body(error.errors(), error.body))


async def on_http_error(request: Request, error: Exception) -> Response:
    """Errors of the framework: no such path, wrong method, a body that cannot be parsed."""
    assert isinstance(error, HTTPException)
    said = {
        400: f"the body is not JSON: {reason_of(error.__cause__)}",
        404: "there is nothing at this path",
        405: f"this path does not take {request.method}",
    }
    message = said.get(error.status_code, str(error.detail))
    response = error_response(ApiError(error.status_code, message))
    response.headers.update(error.headers or {})
    return response


async def on_client_gone(request: Request, error: Exception) -> Response:
    return Response(status_code=CLIENT_CLOSED)  # nobody reads it; it is counted


async def on_failure(request: Request, error: Exception) -> Response:
    message = f"the server failed: {type(error).__name__}"
    return error_response(ApiError(500, message, code="internal_error"))


def reason_of(cause: BaseException | None) -> str:
    """Why a body could not be parsed."""
    if isinstance(cause, UnicodeDecodeError):
        return f"it is not UTF-8 (byte {cause.start})"
    return "it is nested too deep" if isinstance(cause, RecursionError) else str(cause)


def invalid_body(problems: Any, body: Any) -> ApiError:
    """What pydantic found, as one sentence with the field, the value and the rule.

    Where a field may be of several types there is a problem for each; the one furthest inside says
    most, and one that is not about the type itself.
    """

    def says(problem: Any) -> tuple[int, bool]:
        return len(field_path(problem, body)), not problem["type"].endswith("_type")

    problem = max(problems, key=says)
    kind = problem["type"]
    if kind == "json_invalid":
        where = f"{problem['ctx']['error']} (character {problem['loc'][-1]})"
        return ApiError(400, f"the body is not JSON: {where}", code="invalid_json")
    path = field_path(problem, body)
    if not path:
        return ApiError(400, "the body must be a JSON object", code="invalid_json")
    field, param = ".".join(path), path[0]
    if kind == "extra_forbidden":
        said = f"{field}: this server does not know the field; leave it out"
        return ApiError(400, said, param, "unknown_parameter")
    if kind in ("missing", "union_tag_not_found"):
        name = field if kind == "missing" else f"{field}.type"
        return ApiError(400, f"{name}: must be given", param, "missing_required_parameter")
    if kind == "value_error":  # of schema.py's own
        return ApiError(400, f"{field}: {problem['ctx']['error']}", param, "invalid_value")
    if kind == "union_tag_invalid":
        part = clipped(problem["ctx"]["tag"])
        said = f"{field}: {part!r} is not supported by this server: a message is text"
        return ApiError(400, said, param, "invalid_value")
    rule = re.sub(r"^\w+ should", "must", problem["msg"]).replace(" after validation", "")
    if kind in ("model_type", "model_attributes_type"):
        rule = "must be an object"
    return ApiError(400, f"{field}={shown(problem['input'])}: {rule}", param, "invalid_value")


def field_path(problem: Any, body: Any) -> list[str]:
    """Names and numbers that lead to the field, without what pydantic adds for types."""
    path = []
    for step in problem["loc"][1:]:  # the first is "body"
        there = (
            body if isinstance(body, dict) else range(len(body) if isinstance(body, list) else 0)
        )
        if step in there:
            body = body[step]
            path.append(clipped(str(step)))
    if problem["type"] == "missing" and problem["loc"][-1] not in ("body", *path[-1:]):
        path.append(problem["loc"][-1])
    return path


def shown(value: Any) -> str:
    """A value in an error message: short, and never a whole conversation."""
    if isinstance(value, (list, dict)):
        return f"{type(value).__name__} of {len(value)}"
    return clipped(repr(value[:60] if isinstance(value, str) else value))


def clipped(text: str) -> str:
    return text if len(text) <= 60 else text[:57] + "..."
