"""What must be refused, and how: a 4xx that says why, in OpenAI's form, never a 5xx."""

from __future__ import annotations

import json
import socket
from urllib.parse import urlsplit

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from nanochat.serve.http.body import MAX_BODY_BYTES

CHAT = "/v1/chat/completions"
ASK = [{"role": "user", "content": "hi"}]
KEYS = ("first-key-0123456789", "second-key-0123456789")


def chat(**more) -> bytes:
    return json.dumps({"messages": ASK, "max_tokens": 2, **more}).encode()


def messages(*roles: str) -> bytes:
    return json.dumps({"messages": [{"role": role, "content": "x"} for role in roles]}).encode()


BAD = {
    "malformed JSON": (CHAT, b'{"messages": [', 400, "not JSON"),
    "no object": (CHAT, b"[1]", 400, "must be a JSON object"),
    "empty": (CHAT, b"", 400, "must be a JSON object"),
    "invalid UTF-8": (CHAT, b'{"messages":[{"role":"user","content":"\xff"}]}', 400, "not UTF-8"),
    "half a surrogate pair": (
        CHAT,
        rb'{"messages":[{"role":"user","content":"\ud800"}]}',
        400,
        "surrogate",
    ),
    "NaN": (CHAT, b'{"messages":[{"role":"user","content":"x"}],"temperature":NaN}', 400, "finite"),
    "infinite": (
        CHAT,
        b'{"messages":[{"role":"user","content":"x"}],"temperature":1e999}',
        400,
        "temperature",
    ),
    "deep": (
        CHAT,
        b'{"messages":' + b"[" * 100_000 + b"]" * 100_000 + b"}",
        400,
        "nested too deep",
    ),
    "10 MB": (CHAT, chat(user="x" * 10_000_000), 413, "larger than"),
    "10,000 turns": (CHAT, messages(*["user", "assistant"] * 10_000, "user"), 400, "at most 2048"),
    "a message of 3 MB": (
        CHAT,
        chat(messages=[{"role": "user", "content": "ab " * 10**6}]),
        400,
        "shorten it",
    ),
    "no messages": (CHAT, b"{}", 400, "messages: must be given"),
    "empty messages": (CHAT, chat(messages=[]), 400, "messages"),
    "unknown role": (CHAT, messages("robot"), 400, "messages.0.role='robot'"),
    "a tool's message": (CHAT, messages("user", "tool"), 400, "'tool' are not supported"),
    "content of a wrong type": (
        CHAT,
        chat(messages=[{"role": "user", "content": 5}]),
        400,
        "messages.0.content",
    ),
    "unknown field": (CHAT, chat(temprature=1), 400, "temprature: this server does not know"),
    "negative temperature": (CHAT, chat(temperature=-1), 400, "temperature=-1"),
    "text for a number": (CHAT, chat(max_tokens="5"), 400, "max_tokens='5'"),
    "no tokens": (CHAT, chat(max_tokens=0), 400, "max_tokens=0"),
    "top_p": (CHAT, chat(top_p=1.5), 400, "top_p=1.5: must be less than or equal to 1"),
    "too many samples": (CHAT, chat(n=9), 400, "at most 8"),
    "empty stop": (CHAT, chat(stop=[""]), 400, "stop"),
    "too many stops": (CHAT, chat(stop=["x"] * 17), 400, "stop"),
    "usage without a stream": (
        CHAT,
        chat(stream_options={"include_usage": True}),
        400,
        "stream=true",
    ),
    "top_logprobs alone": (CHAT, chat(top_logprobs=2), 400, "needs logprobs"),
    "tools": (CHAT, chat(tools=[{"type": "function"}]), 400, "tools: not supported"),
    "JSON mode": (
        CHAT,
        chat(response_format={"type": "json_object"}),
        400,
        "response_format: not supported",
    ),
    "penalty": (CHAT, chat(frequency_penalty=1), 400, "frequency_penalty: not supported"),
    "unknown model": (CHAT, chat(model="gpt-4"), 404, "there is sft:d2, base:d2"),
    "huge seed": (
        CHAT,
        b'{"messages":[{"role":"user","content":"x"}],"seed":' + b"9" * 5000 + b"}",
        400,
        "",
    ),
    "token ids out of range": (
        "/v1/completions",
        b'{"prompt":[1,99999]}',
        400,
        "99999 is no token id",
    ),
    "negative token id": ("/v1/completions", b'{"prompt":[-1]}', 400, "-1 is no token id"),
    "no token ids": ("/v1/completions", b'{"prompt":[[]]}', 400, "needs at least one token"),
    "long prompt": (
        "/v1/completions",
        json.dumps({"prompt": "x" * 300}).encode(),
        400,
        "context holds 256",
    ),
    "best_of": ("/v1/completions", b'{"prompt":"x","best_of":3}', 400, "best_of=3"),
    "echo and logprobs": (
        "/v1/completions",
        b'{"prompt":"x","echo":true,"logprobs":1}',
        400,
        "echo",
    ),
    "page: malformed": ("/chat/completions", b"{", 400, "not JSON"),
    "page: unknown field": ("/chat/completions", chat(n=2), 400, "does not know"),
    "no such path": ("/v1/chat", b"{}", 404, "nothing at this path"),
    "no such page": ("/pages/..%2fapp.py", b"", 404, ""),
}


@pytest.mark.parametrize("name", BAD)
def test_refused(server, name):
    path, body, status, said = BAD[name]
    if name == "no such page":
        reply = server.http.get(server.url + path)
    else:
        reply = server.http.post(server.url + path, content=body, timeout=30)
    assert reply.status_code == status, reply.text
    error = reply.json()["error"]
    assert set(error) == {"message", "type", "param", "code"} and said in error["message"]
    assert len(error["message"]) < 500


def test_keys(own_server):
    running = own_server(keys=KEYS)
    running.headers = {"Authorization": f"Bearer {KEYS[1]}"}
    for path in ("/", "/health", "/health/live", "/pages/chat.js"):
        assert (
            running.http.get(running.url + path, headers={"Host": "chat.example.org"}).status_code
            == 200
        )
    for header in (
        {},
        {"Authorization": "Bearer wrong-key"},
        {"Authorization": f"Basic {KEYS[0]}"},
    ):
        for path in ("/stats", "/metrics", "/v1/models"):
            reply = running.http.get(running.url + path, headers=header)
            assert (
                reply.status_code == 401 and reply.json()["error"]["type"] == "authentication_error"
            )
        assert (
            running.http.post(f"{running.url}/chat/completions", json={"messages": ASK}).status_code
            == 401
        )
    for key in KEYS:
        good = {"Authorization": f"Bearer {key}", "Host": "chat.example.org"}
        assert running.http.get(f"{running.url}/v1/models", headers=good).status_code == 200


@pytest.mark.parametrize("header", ["Host", "Origin"])
def test_without_keys_only_this_machine_is_served(server, header):
    for value, status in (
        ("localhost:8000", 200),
        ("http://127.0.0.1:3000", 200),
        ("[::1]:8000", 200),
        ("evil.example", 403),
        ("http://127.0.0.1.evil.example", 403),
        ("null", 403),
    ):
        reply = server.http.get(f"{server.url}/v1/models", headers={header: value})
        assert reply.status_code == status, value


def test_wrong_method(server):
    reply = server.http.get(server.url + CHAT)
    assert reply.status_code == 405 and reply.json()["error"]["type"] == "invalid_request_error"


def test_neighbouring_user_messages_are_one(server):
    def tokens(*said):
        body = {"messages": [{"role": "user", "content": text} for text in said], "max_tokens": 1}
        return server.http.post(server.url + CHAT, json=body).json()["usage"]["prompt_tokens"]

    assert tokens("ab", "cd") == tokens("ab\n\ncd")
    parts = {
        "messages": [{"role": "user", "content": [{"type": "text", "text": "ab"}]}],
        "max_tokens": 1,
    }
    assert server.http.post(server.url + CHAT, json=parts).json()["usage"][
        "prompt_tokens"
    ] == tokens("ab")


def test_an_answers_parts_can_be_sent_back(server):
    parts = [
        {"type": "text", "text": "It is "},
        {"type": "python", "text": "1+1"},
        {"type": "python_output", "text": "2"},
    ]
    said = [*ASK, {"role": "assistant", "content": parts}, *ASK]
    reply = server.http.post(server.url + CHAT, json={"messages": said, "max_tokens": 1}).json()
    plain = [*ASK, {"role": "assistant", "content": "It is 1+12"}, *ASK]
    other = server.http.post(server.url + CHAT, json={"messages": plain, "max_tokens": 1}).json()
    assert reply["usage"]["prompt_tokens"] == other["usage"]["prompt_tokens"] + 4  # the delimiters


def test_a_body_of_unknown_length_is_bounded(server):
    def pieces():
        for _ in range(MAX_BODY_BYTES // 2**20 + 2):
            yield b" " * 2**20

    assert server.http.post(server.url + CHAT, content=pieces(), timeout=30).status_code == 413


def test_broken_http_does_not_hurt(server):
    address = urlsplit(server.url)
    for raw in (b"\x00\xff\x00\r\n\r\n", b"POST / HTTP/1.1\r\nContent-Length: x\r\n\r\n", b"GET"):
        with socket.create_connection((address.hostname, address.port)) as connection:
            connection.sendall(raw)
    assert server.http.get(f"{server.url}/health/live").status_code == 200


json_values = st.recursive(
    st.none() | st.booleans() | st.integers(-5, 5) | st.floats() | st.text(max_size=5),
    lambda inner: (
        st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3)
    ),
    max_leaves=6,
)
FIELDS = [
    "model",
    "messages",
    "prompt",
    "temperature",
    "top_k",
    "top_p",
    "max_tokens",
    "n",
    "stop",
    "seed",
    "logprobs",
]


@settings(
    max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(
    path=st.sampled_from([CHAT, "/v1/completions", "/chat/completions"]),
    extra=st.dictionaries(st.sampled_from(FIELDS), json_values, max_size=3),
)
def test_nothing_one_can_send_is_a_server_error(server, path, extra):
    body = {
        "max_tokens": 1,
        **({"prompt": "x"} if path == "/v1/completions" else {"messages": ASK}),
        **extra,
    }
    raw = json.dumps(body, ensure_ascii=True).encode()
    reply = server.http.post(server.url + path, content=raw, timeout=30)
    assert reply.status_code < 500, (raw, reply.text)
    if reply.status_code != 200:
        assert reply.json()["error"]["message"]
