"""Models behind another server: a second one of ours, and one that does everything wrong."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import pytest
import torch

from nanochat.runtime.world import World
from nanochat.serve.chat_web import load_service
from nanochat.serve.web_config import ChatWebConfig

WORLD = World(0, 0, 1, torch.device("cpu"))
KEY = "a-key-of-the-upstream"
QUESTION = {"messages": [{"role": "user", "content": "Say something."}], "max_tokens": 12}


@pytest.fixture
def front(own_server: Callable[..., Any], tmp_path) -> Callable[..., Any]:
    """Starts a server whose models are those behind `url`."""

    def start(url: str, key: str | None = None, **settings: Any) -> Any:
        key_file = None
        if key is not None:
            key_file = tmp_path / "key.txt"
            key_file.write_text(key + "\n")
        config = ChatWebConfig(upstream=url, upstream_key_file=key_file, **settings)
        assert config.problems() == []
        return own_server(service=load_service(config, WORLD))

    return start


def post(server, path, body):
    return server.http.post(f"{server.url}{path}", json=body)


def events_of(answer) -> list[dict[str, Any]]:
    lines = [line[6:] for line in answer.text.split("\n") if line.startswith("data: ")]
    return [json.loads(line) for line in lines if line != "[DONE]"]


def without_ids(body: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in body.items() if name not in ("id", "created")}


def test_the_same_answers_as_from_the_upstream_itself(own_server, front):
    back = own_server(keys=(KEY,))
    back.http.headers["Authorization"] = f"Bearer {KEY}"
    server = front(f"{back.url}/v1", KEY)
    asked = {
        "/v1/chat/completions": {**QUESTION, "temperature": 1.0, "seed": 3, "n": 2},
        "/v1/completions": {"prompt": ["Once", "upon a"], "max_tokens": 9, "temperature": 0},
    }
    for path, body in asked.items():
        for more in ({}, {"model": "base:d2"}):
            own, theirs = (post(s, path, {**body, **more}).json() for s in (server, back))
            for answer in (own, theirs):
                answer["usage"].pop("prompt_tokens_details")
            assert without_ids(own) == without_ids(theirs)
    models = [model["id"] for model in server.http.get(f"{server.url}/v1/models").json()["data"]]
    assert models == ["sft:d2", "base:d2"]
    streamed = post(server, "/v1/chat/completions", {**QUESTION, "stream": True, "temperature": 0})
    text = "".join(
        choice["delta"].get("content", "")
        for event in events_of(streamed)
        for choice in event["choices"]
    )
    whole = post(back, "/v1/chat/completions", {**QUESTION, "temperature": 0}).json()
    assert text == whole["choices"][0]["message"]["content"] and text
    page = events_of(post(server, "/chat/completions", {**QUESTION, "temperature": 0}))
    assert "".join(event.get("token", "") for event in page) == text
    assert page[-1]["finish_reason"] == "length" and page[-1]["tokens"] == 12
    metrics = server.http.get(f"{server.url}/metrics").text
    assert 'nanochat_generated_tokens_total{model="base:d2"}' in metrics
    server.wait(lambda s: s["running"] == 0)


def test_whoever_leaves_frees_the_upstream_too(own_server, front):
    back = own_server()
    back.engine.step_s = 0.05
    server = front(f"{back.url}/v1")
    body = {**QUESTION, "max_tokens": 200, "stream": True}
    with server.http.stream("POST", f"{server.url}/v1/chat/completions", json=body) as answer:
        next(answer.iter_bytes())
        back.wait(lambda s: s["running"] == 1)
    server.wait(lambda s: s["running"] == 0, seconds=5)
    back.wait(lambda s: s["running"] == 0, seconds=5)


def test_answers_are_cut_in_good_order_when_the_front_stops(own_server, front):
    back = own_server()
    back.engine.step_s = 0.05
    server = front(f"{back.url}/v1", drain_s=0.2)
    body = {**QUESTION, "max_tokens": 200, "stream": True}
    with server.http.stream("POST", f"{server.url}/v1/chat/completions", json=body) as answer:
        pieces = answer.iter_bytes()
        next(pieces)
        server.server.should_exit = True
        rest = b"".join(pieces).decode()
    assert "shutting down" in rest and rest.endswith("data: [DONE]\n\n")
    back.wait(lambda s: s["running"] == 0, seconds=5)


@dataclass
class Strange:
    """A server that answers what it is told to, and notes what it was asked."""

    url: str = ""
    status: int = 200
    body: bytes = b""
    models: bytes = b'{"data": [{"id": "org/model", "max_model_len": 4096}]}'
    headers: dict[str, str] = field(default_factory=dict)
    asked: list[dict[str, Any]] = field(default_factory=list)


@pytest.fixture
def strange() -> Iterator[Strange]:
    told = Strange()

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self):
            self.answer(told.status, told.models, {})

        def do_POST(self):
            told.asked.append(json.loads(self.rfile.read(int(self.headers["Content-Length"]))))
            self.answer(told.status, told.body, told.headers)

        def answer(self, status, body, headers):
            self.send_response(status)
            for name, value in headers.items():
                self.send_header(name, value)
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *words):
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True).start()
        told.url = f"http://127.0.0.1:{server.server_port}/v1"
        yield told
        server.shutdown()


def chunk(text: str = "", finish: str | None = None, **more: Any) -> bytes:
    choice = {"index": 0, "delta": {"content": text}, "finish_reason": finish}
    return (
        b"data: "
        + json.dumps({"choices": [choice], **more}, ensure_ascii=False).encode()
        + (b"\r\n\r\n")
    )


END = b"data: [DONE]\n\n"
ERROR = b'{"error": {"message": "the reason", "param": "stop", "code": "its_code"}}'
REFUSALS = [
    (400, ERROR, {}, 400, "its_code", "the reason"),
    (422, b'{"detail": "other form"}', {}, 400, "upstream_refused", "other form"),
    (401, ERROR, {}, 502, "upstream_key", "--upstream-key-file"),
    (403, ERROR, {}, 502, "upstream_key", "--upstream-key-file"),
    (404, ERROR, {}, 502, "upstream_error", "the reason"),
    (429, ERROR, {"Retry-After": "7"}, 429, "upstream_busy", "the reason"),
    (503, b"", {}, 503, "upstream_busy", "status 503"),
    (500, b"<html>", {}, 502, "upstream_error", "status 500"),
    (302, b"", {"Location": "http://127.0.0.1:1/"}, 502, "upstream_error", "status 302"),
    (200, b"", {}, 502, "upstream_error", "breaks off"),
    (200, b"data: {nonsense\n\n", {}, 502, "upstream_error", "not JSON"),
    (200, b'data: {"choices": [7]}\n\n', {}, 502, "upstream_error", "form of its own"),
    (200, b'data: {"error": {"message": "m"}}\n\n', {}, 502, "upstream_error", "failed: m"),
    (200, b'data: {"error": "text"}\n\n', {}, 502, "upstream_error", "failed: text"),
]


def test_its_failures_are_answered_and_counted_as_such(strange, front):
    server = front(strange.url)
    failures = 0
    for status, body, headers, told, code, words in REFUSALS:
        strange.status, strange.body, strange.headers = status, body, headers
        for stream in (False, True):
            for path in ("/v1/chat/completions", "/chat/completions"):
                question = QUESTION if path[1] == "c" else {**QUESTION, "stream": stream}
                answer = post(server, path, question)
                error = answer.json()["error"]
                assert (answer.status_code, error["code"]) == (told, code), (status, body, error)
                assert words in error["message"] and strange.url not in error["message"]
                failures += 1
        if "Retry-After" in headers:
            assert answer.headers["Retry-After"] == headers["Retry-After"]
    metrics = server.http.get(f"{server.url}/metrics").text
    counts = [line for line in metrics.split("\n") if line.startswith("nanochat_upstream_failures")]
    totals = [float(line.split()[-1]) for line in counts if "_total" in line]
    assert sum(totals) == failures
    assert 'nanochat_upstream_failures_total{model="org/model",status="429"} 4.0' in counts
    assert server.stats()["running"] == 0


def test_what_breaks_off_in_the_middle_is_told_in_the_stream(strange, front):
    server = front(strange.url)
    strange.body = chunk("Half of")
    events = events_of(post(server, "/v1/chat/completions", {**QUESTION, "stream": True}))
    assert events[1]["choices"][0]["delta"]["content"] == "Half of"
    assert events[-1]["error"]["code"] == "upstream_error"
    last = events_of(post(server, "/chat/completions", QUESTION))[-1]
    assert last["finish_reason"] == "error" and "breaks off" in last["error"]
    assert post(server, "/v1/chat/completions", QUESTION).status_code == 502


def test_a_server_that_has_gone_is_told_at_once_and_found_again(own_server, front):
    back = own_server()
    port = int(back.url.rpartition(":")[2])
    server = front(f"{back.url}/v1")
    back.stop()
    start_s = time.monotonic()
    answer = post(server, "/v1/chat/completions", QUESTION)
    assert answer.status_code == 502 and time.monotonic() - start_s < 5
    assert answer.json()["error"]["code"] == "upstream_unreachable"
    again = own_server(port=port)
    assert post(server, "/v1/chat/completions", QUESTION).status_code == 200
    again.wait_until_idle()


def test_what_is_sent_and_what_is_made_of_the_answer(strange, front):
    server = front(strange.url)
    strange.body = (
        b": a comment\n\n"
        + chunk("It is ", nanochat={"parts": [{"type": "python", "text": "1+1"}]})
        + chunk("two\u2028.")
        + chunk(finish="content_filter")
        + b'data: {"choices": [], "usage": {"prompt_tokens": 11, "completion_tokens": 5}}\n\n'
        + END
    )
    history = [
        {"role": "developer", "content": "Be short."},
        {"role": "user", "content": [{"type": "text", "text": "And?"}]},
        {
            "role": "assistant",
            "content": [{"type": "python", "text": "1"}, {"type": "text", "text": "x"}],
        },
        {"role": "user", "content": "1+1?"},
    ]
    question = {"messages": history, "stop": ["END"], "top_k": 5}
    body = post(server, "/v1/chat/completions", question).json()
    message = body["choices"][0]["message"]
    assert message["content"] == "It is two\u2028."
    assert message["parts"][0] == {"type": "python", "text": "1+1"}
    assert body["choices"][0]["finish_reason"] == "stop"
    assert body["nanochat"]["finish_detail"] == "the upstream says: content_filter"
    assert (body["usage"]["prompt_tokens"], body["usage"]["completion_tokens"]) == (11, 5)
    assert strange.asked[-1] == {
        "model": "org/model",
        "messages": [
            {"role": "system", "content": "Be short."},
            {"role": "user", "content": "And?"},
            {"role": "assistant", "content": "x"},
            {"role": "user", "content": "1+1?"},
        ],
        "stop": ["END"],
        "top_k": 5,
        "temperature": 0.8,
        "max_tokens": 512,
        "stream": True,
        "stream_options": {"include_usage": True},
    }
    entry = server.http.get(f"{server.url}/v1/models/org/model").json()
    assert (entry["id"], entry["context_length"]) == ("org/model", 4096)
    refused = post(server, "/v1/chat/completions", {**QUESTION, "logprobs": True})
    assert refused.status_code == 400 and "logprobs" in refused.json()["error"]["message"]
    refused = post(server, "/v1/completions", {"prompt": "x", "echo": True})
    assert refused.status_code == 400 and "echo" in refused.json()["error"]["message"]


def test_addresses_that_are_none(strange, tmp_path):
    with pytest.raises(ValueError, match=r"127.0.0.1:1/v1: cannot be reached"):
        load_service(ChatWebConfig(upstream="http://127.0.0.1:1/v1"), WORLD)
    for body, words in ((b"[]", "no list of models"), (b'{"data": []}', "serves no model")):
        strange.models = body
        with pytest.raises(ValueError, match=words):
            load_service(ChatWebConfig(upstream=strange.url), WORLD)
    strange.status = 401
    with pytest.raises(ValueError, match="check --upstream-key-file"):
        load_service(ChatWebConfig(upstream=strange.url), WORLD)
    empty, short = tmp_path / "empty", tmp_path / "two"
    empty.write_text("\n")
    short.write_text("a\nb\n")
    wrong = {
        "127.0.0.1:9000/v1": {},
        "http://user:secret@host/v1": {},
        "http://host/v1?key=1": {},
        "ftp://host/v1": {},
        "http://host/v1": {"upstream_key_file": empty},
        "http://host:1/v1": {"upstream_key_file": short},
        "http://host:2/v1": {"upstream_key_file": tmp_path / "missing"},
        "http://host:3/v1": {"step": 3},
    }
    for url, more in wrong.items():
        assert ChatWebConfig(upstream=url, **more).problems(), url
    assert ChatWebConfig(upstream_key_file=short).problems()
    assert not ChatWebConfig(upstream="https://host/some/path/v1/").problems()
