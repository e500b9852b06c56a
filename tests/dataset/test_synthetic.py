"""Synthetic conversations against a small server on this machine that answers well, badly, late or
not at all.
"""

from __future__ import annotations

import json
import subprocess
import sys
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from nanochat.dataset.chat_endpoint import Unusable
from nanochat.dataset.conversations import read_conversations
from nanochat.dataset.synthetic import SyntheticConfig, generate, parse_answer

ROOT = Path(__file__).resolve().parents[2]


def talk(number):
    return [
        {"role": "user", "content": f"Question {number}: who are you?"},
        {"role": "assistant", "content": "I am nanochat."},
    ]


@pytest.fixture
def endpoint():
    """A server whose `script` decides each answer: (status, text or raw body) for request number
    i."""

    class Server(ThreadingHTTPServer):
        script = staticmethod(lambda number: (200, json.dumps(talk(number))))
        requests: list = []
        most_at_once = busy = 0

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self):
            server = self.server
            body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            with lock:
                server.busy += 1
                server.most_at_once = max(server.most_at_once, server.busy)
                number = len(server.requests)
                server.requests.append((self.path, self.headers.get("Authorization"), body))
            status, text = server.script(number)
            raw = text if isinstance(text, bytes) else None
            reply = raw or json.dumps({"choices": [{"message": {"content": text}}]}).encode()
            with lock:
                server.busy -= 1
            self.send_response(status)
            self.send_header("Content-Length", str(len(reply)))
            self.end_headers()
            self.wfile.write(reply)

        def log_message(self, *args):
            pass

    lock = threading.Lock()
    server = Server(("127.0.0.1", 0), Handler)
    server.requests = []
    thread = threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True)
    thread.start()
    server.url = f"http://127.0.0.1:{server.server_address[1]}/v1/"
    yield server
    server.shutdown()
    server.server_close()


def config(server, tmp_path, **changes):
    settings = dict(
        n=6,
        output=str(tmp_path / "out.jsonl"),
        base_url=server.url,
        model="m",
        concurrency=3,
        retries=2,
    )
    return SyntheticConfig(**{**settings, **changes})


@pytest.fixture(autouse=True)
def no_waiting(monkeypatch):
    monkeypatch.setattr("nanochat.dataset.chat_endpoint.FIRST_PAUSE_S", 0.001)


def contents(path):
    conversations, problems = read_conversations(path)
    assert problems == []
    return conversations


def test_offline_templates_need_no_endpoint(base_dir):
    path = generate(SyntheticConfig(n=20))
    assert path == base_dir / "identity_conversations.jsonl" and len(contents(path)) == 20
    with pytest.raises(ValueError, match="--overwrite"):
        generate(SyntheticConfig(n=5))
    assert len(contents(path)) == 20
    assert len(contents(generate(SyntheticConfig(n=5, overwrite=True)))) == 5


def test_an_endpoint_writes_varied_prompts_and_gets_the_key(endpoint, tmp_path, monkeypatch):
    monkeypatch.setenv("MY_KEY", "secret")
    path = generate(config(endpoint, tmp_path, n=12, api_key_env="MY_KEY"))
    assert len(contents(path)) == 12
    paths, keys, bodies = zip(*endpoint.requests, strict=True)
    assert set(paths) == {"/v1/chat/completions"} and set(keys) == {"Bearer secret"}
    assert (
        len({body["messages"][0]["content"] for body in bodies}) > 8 and bodies[0]["model"] == "m"
    )
    assert "nanochat" in bodies[0]["messages"][0]["content"] and "secret" not in path.read_text()


def test_failures_bad_answers_and_repetitions_are_overcome(endpoint, tmp_path, monkeypatch):
    monkeypatch.delenv("OPENAI_API_KEY", raising=False)
    odd = {
        0: (503, "busy"),
        1: (200, "no json here"),
        2: (429, "slow down"),
        3: (200, "[1, 2]"),
        4: (200, json.dumps(talk(5))),  # said twice
        7: (200, f"Sure!\n```json\n{json.dumps(talk(7))}\n```\nHope it helps"),
    }
    endpoint.script = lambda number: odd.get(number, (200, json.dumps(talk(number))))
    path = generate(config(endpoint, tmp_path))
    rows = contents(path)
    assert len(rows) == 6 and len({json.dumps(row) for row in rows}) == 6
    assert endpoint.requests[0][1] is None  # no key, no header


def test_an_interrupted_run_goes_on(endpoint, tmp_path):
    endpoint.script = lambda number: (
        (200, json.dumps(talk(number))) if number < 3 else (401, "who are you?")
    )
    with pytest.raises(ValueError, match=r"status 401.*\$OPENAI_API_KEY"):
        generate(config(endpoint, tmp_path, concurrency=1))
    path = tmp_path / "out.jsonl"
    first = path.read_text()
    assert len(contents(path)) == 3
    path.write_text(first + '{"messages": [{"role": "us')  # killed while writing
    endpoint.script = lambda number: (200, json.dumps(talk(number)))
    endpoint.requests.clear()
    generate(config(endpoint, tmp_path))
    assert (
        path.read_text().startswith(first)
        and len(contents(path)) == 6
        and len(endpoint.requests) <= 6
    )
    endpoint.requests.clear()
    generate(config(endpoint, tmp_path))
    assert endpoint.requests == []


def test_another_personas_file_is_not_continued(endpoint, tmp_path):
    other = [{"role": "user", "content": "Hi"}, {"role": "assistant", "content": "I am Bo."}]
    (tmp_path / "out.jsonl").write_text(json.dumps(other) + "\n")
    with pytest.raises(ValueError, match="never mentions 'nanochat'"):
        generate(config(endpoint, tmp_path))
    (tmp_path / "out.jsonl").write_text("broken\n")
    with pytest.raises(ValueError, match=r"out\.jsonl:1: not JSON.*--overwrite"):
        generate(config(endpoint, tmp_path))
    assert len(contents(generate(config(endpoint, tmp_path, overwrite=True)))) == 6


def test_an_endpoint_that_never_helps_is_one_error(endpoint, tmp_path):
    for script, message in [
        (lambda number: (500, "broken"), "no answer after 3 tries"),
        (lambda number: (404, "no such model"), "status 404"),
        (lambda number: (200, b"<html>"), "not an OpenAI-compatible answer"),
        (lambda number: (200, json.dumps(talk(0))), "only 1 of 6 conversations"),
        (lambda number: (200, "nonsense"), "only 0 of 6 conversations"),
    ]:
        endpoint.script = script
        with pytest.raises(ValueError, match=message):
            generate(config(endpoint, tmp_path, overwrite=True))
    with pytest.raises(ValueError, match="no answer after 1 tries"):
        generate(
            config(endpoint, tmp_path, base_url="http://127.0.0.1:1/v1", retries=0, overwrite=True)
        )


def test_settings_are_checked_together():
    assert (
        len(
            SyntheticConfig(
                n=0, concurrency=0, retries=-1, timeout_s=0, base_url="ftp://x"
            ).problems()
        )
        == 6
    )
    assert SyntheticConfig().problems() == []


def test_answers_are_found_in_prose_and_refused_when_malformed():
    assert parse_answer(f'Here: {{"messages": {json.dumps(talk(1))}}} bye') == {"messages": talk(1)}
    for text in ("", "none", "[", json.dumps(talk(1)[:1]), "[" * 50_000):
        with pytest.raises(Unusable):
            parse_answer(text)


def test_the_script_runs_from_a_checkout(tmp_path):
    command = [
        sys.executable,
        str(ROOT / "dev" / "gen_synthetic_data.py"),
        "-n",
        "3",
        "--output",
        "o.jsonl",
    ]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
    assert len(contents(tmp_path / "o.jsonl")) == 3
    again = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=60)
    assert (
        again.returncode == 2
        and again.stderr.startswith("error: o.jsonl exists")
        and again.stderr.count("\n") == 1
    )
