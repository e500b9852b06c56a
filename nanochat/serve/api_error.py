"""What goes wrong with a request: how it is told is the business of `http/error_response.py`."""

from __future__ import annotations


class ApiError(Exception):
    """A request that is not answered: HTTP status, what is wrong, the field it is about, a short
    machine-readable code, and when to come back.
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
        self.status = status
        self.message = message
        self.param = param
        self.code = code
        self.retry_after_s = retry_after_s


def busy(message: str, retry_after_s: float) -> ApiError:
    """429: come back later."""
    return ApiError(429, message, code="rate_limit_exceeded", retry_after_s=retry_after_s)


def too_long(message: str, param: str) -> ApiError:
    """400: more tokens than the context holds."""
    return ApiError(400, message, param, "context_length_exceeded")


def shutting_down() -> ApiError:
    """503: the server takes no more requests and cuts long answers short."""
    reason = "the server is shutting down; send the request again"
    return ApiError(503, reason, code="shutting_down", retry_after_s=10)
