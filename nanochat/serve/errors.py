"""What goes wrong with a request, in the form that OpenAI's clients understand."""

from __future__ import annotations

import math
from typing import Any

TYPES = {
    401: "authentication_error",
    403: "permission_error",
    404: "not_found_error",
    429: "rate_limit_error",
}


class ApiError(Exception):
    """An answer other than 200: HTTP status, what is wrong, the field it is about, a short
    machine-readable code.
    """

    def __init__(
        self,
        status: int,
        message: str,
        param: str | None = None,
        code: str | None = None,
        retry_after_s: float | None = None,
    ) -> None:
        super().__init__(message)
        self.status, self.message, self.param, self.code = status, message, param, code
        self.retry_after_s = retry_after_s

    @property
    def body(self) -> dict[str, Any]:
        """`{"error": {"message", "type", "param", "code"}}`."""
        kind = TYPES.get(
            self.status, "server_error" if self.status >= 500 else "invalid_request_error"
        )
        return {
            "error": {"message": self.message, "type": kind, "param": self.param, "code": self.code}
        }

    @property
    def headers(self) -> dict[str, str]:
        headers = {}
        if self.retry_after_s is not None:
            headers["Retry-After"] = str(max(1, math.ceil(self.retry_after_s)))
        if self.status == 401:
            headers["WWW-Authenticate"] = "Bearer"
        return headers


def busy(message: str, retry_after_s: float) -> ApiError:
    """429: come back later."""
    return ApiError(429, message, code="rate_limit_exceeded", retry_after_s=retry_after_s)


def too_long(message: str, param: str) -> ApiError:
    """400: more tokens than the context holds."""
    return ApiError(400, message, param, "context_length_exceeded")
