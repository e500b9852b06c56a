"""`nanochat bench serve`: what is measured is what the server did; a server is started, measured
and stopped.
"""

from __future__ import annotations

import asyncio
import json
import socket

import pytest

from bench.serve import ServeBenchConfig, bench_serve, summary
from bench.timed_client import TimedReply, ask, chat_body, percentiles
from nanochat import config as configs


def test_a_reply_has_the_servers_text_and_times(server):
    port = int(server.url.rsplit(":", 1)[1])
    reply = asyncio.run(ask("127.0.0.1", port, chat_body("hello", 12, temperature=0)))
    assert reply.status == 200 and reply.finish_reason == "length" and len(reply.text) == 12
    assert reply.completion_tokens == len(reply.piece_times_s) == 12 and reply.prompt_tokens > 5
    assert len(reply.gaps_s) == 11 and min(reply.gaps_s) >= 0 and 0 < reply.first_token_s < 10
    assert asyncio.run(ask("127.0.0.1", port, chat_body("hello", 0))).status == 400


def test_hanging_up_in_the_middle(server):
    port = int(server.url.rsplit(":", 1)[1])
    server.engine.step_s = 0.02
    reply = asyncio.run(
        ask("127.0.0.1", port, chat_body("hello", 100, temperature=0), leave_after=3)
    )
    assert len(reply.piece_times_s) == 3 and reply.finish_reason is None


def test_summary_counts_what_came_in_time():
    def reply(first: float, n: int, step: float, tokens: int) -> TimedReply:
        return TimedReply(
            10.0, 200, "x" * n, "length", [10 + first + step * k for k in range(n)], 20, tokens
        )

    replies = [reply(0.1, 10, 0.1, 10), reply(0.3, 10, 0.1, 20), TimedReply(10.0, 429)]
    level = summary(replies, 3, 1.0, 11.0)
    assert (
        level["statuses"] == {"200": 2, "429": 1}
        and level["requests"] == 3
        and level["prompt_tokens"] == 20
    )
    assert level["tokens_per_s"] == pytest.approx(9 + 2 * 7, abs=2.1)
    assert level["first_token_s"]["p99"] == pytest.approx(0.3)
    assert level["between_tokens_s"]["p50"] == pytest.approx(0.1)
    assert percentiles([]) == {"p50": None, "p90": None, "p99": None}
    assert percentiles(list(range(100))) == {"p50": 50, "p90": 90, "p99": 99}


def test_levels_of_a_running_server(server, tmp_path, capsys):
    settings = ServeBenchConfig(
        url=server.url, clients=[1, 3], seconds=0.4, prompt_characters=60, max_tokens=8
    )
    settings.json, settings.plot = tmp_path / "out.json", tmp_path / "out.png"
    assert bench_serve(settings) == 0
    report = json.loads(settings.json.read_text())
    assert [level["clients"] for level in report["levels"]] == [1, 3]
    assert all(
        level["requests"] > 0 and set(level["statuses"]) == {"200"} for level in report["levels"]
    )
    assert report["settings"]["url"] == server.url and report["environment"]
    assert settings.plot.read_bytes().startswith(b"\x89PNG")
    assert capsys.readouterr().out.count("tokens/s") == 2


def test_a_server_is_started_and_stopped(tmp_path, capsys):
    words = (
        "--depth 1 --vocab-size 300 --clients 2 --seconds 0.5 --max-tokens 6 "
        "--prompt-characters 40 --json"
    ).split()
    settings = configs.parse(ServeBenchConfig, [*words, str(tmp_path / "out.json")])
    settings.device_type = "cpu"
    assert bench_serve(settings) == 0
    said = capsys.readouterr().out
    level = json.loads((tmp_path / "out.json").read_text())["levels"][0]
    assert level["statuses"] == {"200": level["requests"]}
    port = int(said.split("127.0.0.1:")[1].split()[0])
    with socket.socket() as probe:
        assert probe.connect_ex(("127.0.0.1", port)) != 0, "the server was meant to be gone"


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ("--url http://example.org:80", "this machine"),
        ("--url https://127.0.0.1:80", "must be http://"),
        ("--url http://127.0.0.1:80 --depth 4", "not together with --url"),
        ("--clients 0", "each 1 or more"),
        ("--seconds 0", "--seconds=0.0: must be above 0"),
    ],
)
def test_refused(words, said):
    found = configs.collect(ServeBenchConfig, words.split())[1]
    assert any(said in problem for problem in found), found


def test_a_server_that_does_not_start_is_reported(base_dir):
    with pytest.raises(ValueError, match="did not start"):
        bench_serve(ServeBenchConfig(model_tag="nowhere"))
