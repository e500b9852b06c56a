"""A server with too much to do: full queue, time limits, clients that vanish or do not read,
shutdown, dead workers.
"""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from urllib.parse import urlsplit

import httpx
import pytest

ROOT = Path(__file__).resolve().parents[2]
ASK = [{"role": "user", "content": "Say something."}]


def post(running, max_tokens=8, **more):
    body = {"messages": ASK, "max_tokens": max_tokens, "temperature": 0, **more}
    return running.http.post(f"{running.url}/v1/chat/completions", json=body)


def raw_stream(running, max_tokens: int) -> socket.socket:
    """A connection that has asked for a stream and has seen its beginning."""
    address = urlsplit(running.url)
    body = json.dumps({"messages": ASK, "max_tokens": max_tokens, "stream": True}).encode()
    connection = socket.create_connection((address.hostname, address.port))
    head = (
        "POST /v1/chat/completions HTTP/1.1\r\nHost: localhost\r\nContent-Length: "
        f"{len(body)}\r\n\r\n"
    )
    connection.sendall(head.encode() + body)
    assert b"200 OK" in connection.recv(100)
    return connection


def test_a_full_queue_says_when_to_come_back(own_server):
    running = own_server(slots=1, max_queue=2)
    running.engine.step_s = 0.02
    with ThreadPoolExecutor(8) as pool:
        replies = list(pool.map(lambda _: post(running), range(8)))
    refused = [reply for reply in replies if reply.status_code == 429]
    assert {reply.status_code for reply in replies} == {200, 429}
    assert sum(reply.status_code == 200 for reply in replies) >= 3
    for reply in refused:
        assert int(reply.headers["retry-after"]) >= 1
        assert reply.json()["error"]["type"] == "rate_limit_error"
    running.wait_until_idle()


def test_the_time_limit_ends_an_answer_in_order(own_server):
    running = own_server(time_limit_s=0.4)
    running.engine.step_s = 0.02
    reply = post(running, max_tokens=200).json()
    assert reply["choices"][0]["finish_reason"] == "length"
    assert reply["nanochat"]["finish_detail"] == "the time limit of 0.4 s is reached"
    assert 0 < reply["usage"]["completion_tokens"] < 100


def test_vanished_clients_free_their_slots(own_server):
    running = own_server(slots=4)
    running.engine.step_s = 0.02
    connections = [raw_stream(running, 200) for _ in range(4)]
    assert running.stats()["running"] == 4
    for connection in connections:
        connection.close()
    start = time.monotonic()
    running.wait_until_idle()
    assert time.monotonic() - start < 2
    assert post(running).status_code == 200


def test_a_client_that_does_not_read_holds_no_slot(own_server, monkeypatch):
    monkeypatch.setattr("nanochat.serve.http.event_stream.SEND_TIME_S", 0.2)
    monkeypatch.setattr(
        "nanochat.serve.http.openai_form.sse", lambda value: "data: " + "x" * 2_000_000 + "\n\n"
    )
    running = own_server()
    running.engine.step_s = 0.1  # 20 s for the whole answer
    connection = raw_stream(running, 200)
    running.wait_until_idle()  # within 10 s
    connection.close()


def test_shutdown_finishes_running_answers_and_refuses_others(own_server):
    running = own_server(slots=2, drain_s=5.0)
    running.engine.step_s = 0.02
    with ThreadPoolExecutor(4) as pool:
        answers = [pool.submit(post, running, 40) for _ in range(2)]
        running.wait(lambda stats: stats["running"] == 2)
        waiting = pool.submit(post, running, 40)
        running.wait(lambda stats: stats["waiting"] == 1)
        running.server.should_exit = True
        assert waiting.result().status_code == 503
        assert [answer.result().json()["usage"]["completion_tokens"] for answer in answers] == [
            40,
            40,
        ]
    running.thread.join(timeout=5)
    assert not running.thread.is_alive()
    with pytest.raises(httpx.ConnectError):
        httpx.get(f"{running.url}/health")


def test_shutdown_has_a_bound(own_server):
    running = own_server(drain_s=0.3)
    running.engine.step_s = 0.05
    with ThreadPoolExecutor(1) as pool:
        answer = pool.submit(post, running, 200)
        running.wait(lambda stats: stats["running"] == 1)
        start = time.monotonic()
        running.server.should_exit = True
        reply = answer.result()
    assert time.monotonic() - start < 3
    assert reply.status_code == 503 and reply.json()["error"]["code"] == "shutting_down"
    assert int(reply.headers["retry-after"]) >= 1


@pytest.mark.parametrize("path", ["/v1/chat/completions", "/v1/completions", "/chat/completions"])
@pytest.mark.parametrize("why", ["shutdown", "time limit"])
def test_a_stream_that_is_cut_says_why(own_server, path, why):
    """Shutdown is an error, in its own event; at the time limit an answer is too long."""
    running = own_server(drain_s=0.3, time_limit_s=0.5 if why == "time limit" else 60.0)
    running.engine.step_s = 0.05
    body = {"max_tokens": 200, "temperature": 0}
    body |= {"prompt": "x"} if path == "/v1/completions" else {"messages": ASK}
    body |= {"stream": True} if path.startswith("/v1") else {}
    with running.http.stream("POST", running.url + path, json=body) as reply:
        assert reply.status_code == 200
        said = []
        for line in filter(None, reply.iter_lines()):
            said.append(line)
            if len(said) == 3 and why == "shutdown":
                running.server.should_exit = True
    event = json.loads([line for line in said if line != "data: [DONE]"][-1][6:])
    reasons = {event.get("finish_reason"), *(c["finish_reason"] for c in event.get("choices", []))}
    if why == "time limit":
        assert "length" in reasons
        detail = event.get("nanochat", event)["finish_detail"]
        assert detail == "the time limit of 0.5 s is reached"
    elif path.startswith("/v1"):
        assert event["error"]["code"] == "shutting_down" and reasons == {None}
    else:
        assert event["done"] is True and "shutting down" in event["error"]


COMMAND = [sys.executable, "-m", "scripts.chat_web", "-p", "0", "--device-type", "cpu"]


def test_the_command_stops_orderly_and_survives_a_dead_worker(base_dir, checkpoint):
    """Two worker processes: one is killed in the middle of an answer, SIGTERM ends the rest with
    exit code 0.
    """
    words = [*COMMAND, "-n", "2", "-m", "4"]
    process = subprocess.Popen(
        words, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    )
    guard = threading.Timer(120, process.kill)
    guard.start()
    try:
        url = next(line for line in process.stdout if "http://" in line).split()[2]
        body = {"prompt": "abc", "max_tokens": 200, "temperature": 0}
        with httpx.Client(verify=False, timeout=30) as http, ThreadPoolExecutor(4) as pool:
            whole = http.post(f"{url}/v1/completions", json=body).json()["choices"][0]["text"]
            assert len(whole) == 200
            children = children_of(process.pid)
            answers = [pool.submit(http.post, f"{url}/v1/completions", json=body) for _ in range(4)]
            while http.get(f"{url}/stats").json()["running"] < 4 and not any(
                a.done() for a in answers
            ):
                pass
            signal_process(children[0], signal.SIGKILL)
            replies = [answer.result() for answer in answers]
            lost = [reply for reply in replies if reply.status_code == 500]
            assert all("worker process died" in reply.json()["error"]["message"] for reply in lost)
            kept = [reply for reply in replies if reply.status_code == 200]
            assert len(kept) + len(lost) == 4 and len(kept) >= 2
            assert all(reply.json()["choices"][0]["text"] == whole for reply in kept)
            assert http.get(f"{url}/health/ready").status_code == 200  # the other one still works
            end = time.monotonic() + 80
            while http.get(f"{url}/health").json()["available_workers"] < 2:
                assert time.monotonic() < end, "the dead worker was not started again"
                time.sleep(0.2)
        process.send_signal(signal.SIGTERM)
        assert process.wait(timeout=30) == 0
    finally:
        guard.cancel()
        process.kill()
        process.stdout.close()


def children_of(pid: int) -> list[int]:
    """Worker processes of a server, the helper of multiprocessing left out."""
    found = []
    for stat in Path("/proc").glob("[0-9]*/stat"):
        try:
            parent = int(stat.read_text().rpartition(")")[2].split()[1])
            command = (stat.parent / "cmdline").read_bytes()
        except OSError:
            continue
        if parent == pid and b"spawn_main" in command:
            found.append(int(stat.parent.name))
    return found


def signal_process(pid: int, number: int) -> None:
    os.kill(pid, number)
