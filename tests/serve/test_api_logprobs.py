"""Log-probabilities belong to the text that is shown: all of its tokens, each with a name."""

from __future__ import annotations

import pytest

from nanochat.engine.event import TokenScore
from nanochat.serve.http.answer import CompletionLogprobs

ASK = [{"role": "user", "content": "Say something."}]


def ask(server, path: str, **more) -> dict:
    start = {"prompt": "Say"} if path == "completions" else {"messages": ASK}
    body = {**start, "max_tokens": 20, "temperature": 0, **more}
    reply = server.http.post(f"{server.url}/v1/{path}", json=body)
    assert reply.status_code == 200, reply.text
    return reply.json()["choices"][0]


@pytest.mark.parametrize("n_top", [0, 1, 3])
def test_completions_name_the_sampled_token(server, n_top):
    more = {"temperature": 1.5, "top_k": 20, "seed": 3, "max_tokens": 40}
    choice = ask(server, "completions", logprobs=n_top, **more)
    scores = choice["logprobs"]
    columns = [scores[name] for name in ("tokens", "token_logprobs", "top_logprobs", "text_offset")]
    assert {len(column) for column in columns} == {40}
    surprises = 0
    for token, logprob, top, offset in zip(*columns, strict=True):
        assert top[token] == logprob and n_top <= len(top) <= n_top + 1
        assert choice["text"][offset:].startswith(token)
        surprises += len(top) == n_top + 1
    assert surprises, "at this temperature some drawn tokens are not among the likeliest"


@pytest.mark.parametrize("stop_at", [(5, 6), (5, 9), (0, 3)])
@pytest.mark.parametrize("path", ["chat/completions", "completions"])
def test_tokens_of_a_removed_stop_string_have_no_score(server, path, stop_at):
    def text_of(choice: dict) -> str:
        return choice["text"] if path == "completions" else choice["message"]["content"]

    def tokens_of(choice: dict) -> list[str]:
        scores = choice["logprobs"]
        if path == "completions":
            return scores["tokens"]
        return [entry["token"] for entry in scores["content"]]

    wanted = {"logprobs": 0 if path == "completions" else True}
    whole = text_of(ask(server, path))
    stop = whole[slice(*stop_at)]
    choice = ask(server, path, stop=[stop], **wanted)
    assert text_of(choice) == whole[: whole.index(stop)] and choice["finish_reason"] == "stop"
    assert "".join(tokens_of(choice)) == text_of(choice)
    held = ask(server, path, stop=[whole[-2:] + "never"], **wanted)  # looked for, not found
    assert "".join(tokens_of(held)) == text_of(held) == whole


class TwoAlike:
    """Ids 0 and 1 are written alike, 2 and 3 are bytes of no character, 4 begins one."""

    special_tokens: dict[str, int] = {}

    def decode_bytes(self, ids: list[int]) -> bytes:
        return b"".join(
            [b"a", b"a", b"\x80", b"\xff", "é".encode()[:1], "é".encode()[1:]][i] for i in ids
        )


def test_no_two_tokens_share_a_name():
    top = ((0, -1.0), (1, -2.0), (2, -3.0), (3, -4.0))
    scores = CompletionLogprobs(TwoAlike()).of([TokenScore(1, -2.0, top), TokenScore(2, -3.0, top)])
    first, second = scores["top_logprobs"]
    assert first == {"a": -2.0, "token_id:0": -1.0, r"bytes:\x80": -3.0, r"bytes:\xff": -4.0}
    assert second == {r"bytes:\x80": -3.0, "a": -1.0, "token_id:1": -2.0, r"bytes:\xff": -4.0}
    assert scores["tokens"] == ["a", r"bytes:\x80"] and scores["text_offset"] == [0, 1]


def test_a_character_of_two_tokens_begins_with_the_first():
    logprobs = CompletionLogprobs(TwoAlike())
    first = logprobs.of([TokenScore(0, -1.0), TokenScore(4, -1.0)])
    later = logprobs.of([TokenScore(5, -1.0), TokenScore(0, -1.0)])  # in the next event
    assert first["text_offset"] + later["text_offset"] == [0, 1, 1, 2]
