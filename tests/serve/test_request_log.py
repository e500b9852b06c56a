"""Requests have numbers, and a line in the log that gives nothing away."""

from __future__ import annotations

import io
import json
import logging
from collections.abc import Iterator

import pytest

from nanochat.serve.json_log import log_as_json

SECRET = "a-secret-that-must-not-be-logged"


@pytest.fixture
def logged() -> Iterator[io.StringIO]:
    root = logging.getLogger()
    handlers, level = root.handlers, root.level
    stream = io.StringIO()
    log_as_json(stream)
    yield stream
    root.handlers, root.level = handlers, level


def lines(stream: io.StringIO) -> list[dict]:
    return [json.loads(line) for line in stream.getvalue().splitlines()]


def test_each_request_has_a_line_without_what_was_said(server, logged):
    body = {"messages": [{"role": "user", "content": SECRET}], "max_tokens": 4}
    sent = {
        "Authorization": f"Bearer {SECRET}",
        "Cookie": f"session={SECRET}",
        "X-Request-ID": "from-the-proxy-1",
    }
    url = f"{server.url}/v1/chat/completions?q={SECRET}"
    answer = server.http.post(url, json=body, headers=sent)
    said = answer.json()["choices"][0]["message"]["content"]
    assert answer.headers["X-Request-ID"] == "from-the-proxy-1"
    missing = server.http.get(f"{server.url}/nothing/{SECRET}")
    for path in ("/v1/models/no-such", "/health"):
        server.http.get(f"{server.url}{path}")
    server.http.post(f"{server.url}/chat/completions", content=b'{"messages": "' + b"x" * 50)
    found = [line for line in lines(logged) if line["logger"] == "nanochat.requests"]
    assert [(line["route"], line["status"]) for line in found] == [
        ("/v1/chat/completions", 200),
        ("other", 404),
        ("/v1/models/{name:path}", 404),
        ("/health", 200),
        ("/chat/completions", 400),
    ]
    assert found[0]["request_id"] == "from-the-proxy-1" and found[0]["duration_ms"] > 0
    assert found[1]["request_id"] == missing.headers["X-Request-ID"]
    assert SECRET not in logged.getvalue() and said not in logged.getvalue()


@pytest.mark.parametrize("given", ["short", "x" * 65, "spaces in it", 'quote"here-and', "é" * 9])
def test_numbers_that_are_none_are_replaced(server, given):
    answer = server.http.get(f"{server.url}/health", headers={"X-Request-ID": given.encode()})
    assert len(answer.headers["X-Request-ID"]) == 16


def test_an_error_is_one_line_with_its_trace(logged):
    try:
        raise RuntimeError("two\nlines")
    except RuntimeError:
        logging.getLogger("nanochat.x").exception("it failed: %s", "why")
    (line,) = lines(logged)
    assert line["message"] == "it failed: why" and line["level"] == "error"
    assert "two\nlines" in line["traceback"] and line["time"].endswith("Z")
