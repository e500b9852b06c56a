"""What HTTP clients and browsers expect besides the answers: HEAD, CORS, packed bodies, lines."""

from __future__ import annotations

import gzip
import json
import tracemalloc
import zlib

import pytest

from nanochat.serve.api_error import ApiError
from nanochat.serve.http.body import MAX_BODY_BYTES, unpacked

CHAT = "/v1/chat/completions"
ASK = [{"role": "user", "content": "hi"}]
BODY = json.dumps({"messages": ASK, "max_tokens": 2, "temperature": 0}).encode()
KEY = "first-key-0123456789"


@pytest.mark.parametrize(
    "path", ["/", "/health", "/health/live", "/health/ready", "/v1/models", "/pages/chat.js"]
)
def test_head_is_get_without_the_body(server, path):
    get = server.http.get(server.url + path)
    head = server.http.head(server.url + path)
    assert head.status_code == get.status_code == 200 and head.content == b""
    for name in ("content-length", "content-type"):
        assert head.headers[name] == get.headers[name]
    assert server.http.get(server.url + path).content == get.content  # on the same connection


def test_head_where_there_is_nothing(server):
    assert server.http.head(f"{server.url}/nothing").status_code == 404
    assert server.http.head(server.url + CHAT).status_code == 405


def preflight(running, origin: str, **headers: str):
    asked = {
        "Origin": origin,
        "Access-Control-Request-Method": "POST",
        "Access-Control-Request-Headers": "authorization,content-type,x-stainless-lang",
        **headers,
    }
    return running.http.options(running.url + CHAT, headers=asked)


LOCAL = [
    "http://localhost:3000",
    "http://127.0.0.1:8080",
    "http://[::1]:5173",
    "https://a.localhost",
]
FOREIGN = ["https://evil.example", "http://localhost.evil.example", "null", "file://"]


@pytest.mark.parametrize("origin", LOCAL)
def test_pages_of_this_machine_may_ask(server, origin):
    reply = preflight(server, origin)
    assert reply.status_code == 200
    assert reply.headers["access-control-allow-origin"] == origin
    assert "POST" in reply.headers["access-control-allow-methods"]
    allowed = reply.headers["access-control-allow-headers"].lower()
    assert "authorization" in allowed and "x-stainless-lang" in allowed
    for stream in (False, True):
        body = {"messages": ASK, "max_tokens": 2, "stream": stream}
        answer = server.http.post(server.url + CHAT, json=body, headers={"Origin": origin})
        assert answer.status_code == 200
        assert answer.headers["access-control-allow-origin"] == origin


@pytest.mark.parametrize("origin", FOREIGN)
def test_other_pages_may_not(server, origin):
    reply = preflight(server, origin)
    assert reply.status_code == 400 and "access-control-allow-origin" not in reply.headers
    answer = server.http.post(server.url + CHAT, content=BODY, headers={"Origin": origin})
    assert answer.status_code == 403 and "access-control-allow-origin" not in answer.headers


@pytest.mark.parametrize("keys", [(), (KEY,)])
def test_allowed_origins(own_server, keys):
    page = "https://chat.example.org"
    running = own_server(keys=keys, allowed_origins=(page,))
    running.headers = {"Authorization": f"Bearer {KEY}"}
    network = {"Access-Control-Request-Private-Network": "true"}
    for origin in (page, "http://localhost:3000"):
        assert preflight(running, origin, **network).status_code == 200
        headers = {**running.headers, "Origin": origin}
        answer = running.http.post(running.url + CHAT, content=BODY, headers=headers)
        assert answer.status_code == 200
        assert answer.headers["access-control-allow-origin"] == origin
        assert "x-nanochat-dropped-turns" in answer.headers["access-control-expose-headers"].lower()
    assert preflight(running, "https://chat.example.org.evil").status_code == 400
    if keys:  # a refusal can be read by the page
        refused = running.http.post(running.url + CHAT, content=BODY, headers={"Origin": page})
        assert refused.status_code == 401
        assert refused.headers["access-control-allow-origin"] == page


def packed(server, body: bytes, encoding: str = "gzip"):
    return server.http.post(server.url + CHAT, content=body, headers={"Content-Encoding": encoding})


def test_packed_bodies(server):
    plain = server.http.post(server.url + CHAT, content=BODY).json()["choices"]
    for body, encoding in (
        (gzip.compress(BODY), "gzip"),
        (gzip.compress(BODY), "X-GZIP"),
        (gzip.compress(BODY) + b"\0" * 9, "gzip"),
        (BODY, "identity"),
    ):
        reply = packed(server, body, encoding)
        assert reply.status_code == 200, reply.text
        assert reply.json()["choices"] == plain


@pytest.mark.parametrize("encoding", ["br", "zstd", "deflate", "gzip, gzip", "made-up"])
def test_other_packings_are_refused(server, encoding):
    reply = packed(server, zlib.compress(BODY), encoding)
    assert reply.status_code == 415 and encoding in reply.json()["error"]["message"]


@pytest.mark.parametrize(
    ("body", "status"),
    [
        (gzip.compress(b" " * (MAX_BODY_BYTES + 1)), 413),
        (gzip.compress(b" " * (64 << 20)), 413),
        (gzip.compress(gzip.compress(b" " * (64 << 20))), 400),  # JSON it is not
        (gzip.compress(b"") * 200_000, 400),
        (gzip.compress(BODY)[:-4], 400),
        (gzip.compress(BODY) + b"more", 400),
        (b"\x1f\x8b\x08\0\0\0\0\0\0\0\xff\xff\xff", 400),
        (BODY, 400),
        (b"", 400),
    ],
    ids=[
        "a byte too many",
        "a bomb",
        "in a bomb",
        "many",
        "cut",
        "more",
        "damaged",
        "plain",
        "none",
    ],
)
def test_bombs_and_damaged_packings(server, body, status):
    reply = packed(server, body)
    assert reply.status_code == status, reply.text
    assert reply.json()["error"]["message"]


def test_a_bomb_takes_no_memory():
    bomb = gzip.compress(b" " * (128 << 20))
    tracemalloc.start()
    try:
        with pytest.raises(ApiError, match="larger than"):
            unpacked(bomb, MAX_BODY_BYTES)
        assert tracemalloc.get_traced_memory()[1] < 4 * MAX_BODY_BYTES
    finally:
        tracemalloc.stop()


@pytest.mark.parametrize(
    "kind", ["application/json", "text/plain", "application/x-www-form-urlencoded", ""]
)
def test_bodies_are_json_whatever_they_are_called(server, kind):
    reply = server.http.post(server.url + CHAT, content=BODY, headers={"Content-Type": kind})
    assert reply.status_code == 200, reply.text


def test_a_byte_order_mark_is_no_mistake(server):
    assert server.http.post(server.url + CHAT, content=b"\xef\xbb\xbf" + BODY).status_code == 200
    both = gzip.compress(b"\xef\xbb\xbf" + BODY)
    assert packed(server, both).status_code == 200


@pytest.mark.parametrize("path", [CHAT, "/v1/completions", "/chat/completions"])
def test_an_event_is_one_line_to_every_reader(own_server, scripted, tokenizer, path):
    text = "a\u2028b\u2029c\u0085d\x0b\x0c\x1c\x1d\x1ee\rf\ng\u00e4"
    running = own_server(native=False)
    scripted(
        running.engine, [*tokenizer.encode(text), tokenizer.encode_special("<|assistant_end|>")]
    )
    body = {"max_tokens": 60, "temperature": 0}
    body |= {"prompt": "x"} if path == "/v1/completions" else {"messages": ASK}
    body |= {"stream": True} if path.startswith("/v1") else {}
    raw = running.http.post(running.url + path, json=body).content.decode()
    lines = [line for line in raw.splitlines() if line]  # at all that Unicode calls a line's end
    assert all(line.startswith("data: ") for line in lines)
    events = [json.loads(line[6:]) for line in lines if line != "data: [DONE]"]
    written = ""
    for event in events:
        choice = event.get("choices", [event])[0]
        written += (
            choice.get("delta", choice).get(
                {CHAT: "content", "/chat/completions": "token"}.get(path, "text")
            )
            or ""
        )
    assert written == text


def test_what_else_is_installed_changes_nothing(server):
    assert (server.server.config.http, server.server.config.loop) == ("h11", "asyncio")
