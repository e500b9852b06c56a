"""What goes wrong with the server behind this one, as it is told to whoever asked here."""

from __future__ import annotations

import json
from typing import Any

from nanochat.serve.api_error import ApiError


def refused(status: int, body: bytes, retry_after: str) -> ApiError:
    """Its refusal as ours: what is wrong with the request is passed on, what is wrong between the
    two servers is a bad gateway.
    """
    said = said_by(body)
    message = str(said.get("message") or f"status {status}")[:1000]
    pause_s = float(retry_after) if retry_after.isdigit() else 5.0
    if status in (400, 413, 422):
        param, code = said.get("param"), said.get("code")
        return ApiError(
            400,
            message,
            param if isinstance(param, str) else None,
            code if isinstance(code, str) else "upstream_refused",
        )
    if status in (429, 503):
        busy = f"the server that runs the model is busy: {message}"
        return ApiError(status, busy, code="upstream_busy", retry_after_s=pause_s)
    if status in (401, 403):
        return ApiError(
            502,
            "the server that runs the model does not accept this server's key; the administrator "
            "has to look at --upstream-key-file",
            code="upstream_key",
        )
    return ApiError(502, f"the server that runs the model failed: {message}", code="upstream_error")


def said_by(body: bytes) -> dict[str, Any]:
    """The error of a body in OpenAI's form, or in one of those that circulate besides."""
    try:
        data = json.loads(body)
    except ValueError:
        return {}
    if not isinstance(data, dict):
        return {}
    error = data.get("error", data.get("detail", data))
    return error if isinstance(error, dict) else {"message": error}


def broken(what: str) -> ApiError:
    reason = f"the server that runs the model sent {what}"
    return ApiError(502, reason, code="upstream_error")


def unreachable(error: Exception) -> ApiError:
    """No answer, or none any more."""
    import httpx

    if isinstance(error, httpx.TimeoutException):
        reason = "the server that runs the model did not answer in time"
        return ApiError(504, reason, code="upstream_timeout", retry_after_s=10)
    reason = f"the server that runs the model cannot be reached ({type(error).__name__})"
    return ApiError(502, reason, code="upstream_unreachable", retry_after_s=5)
