"""What OpenAI's API takes is taken; what cannot be honoured is refused by name."""

from __future__ import annotations

import pytest

CHAT, TEXT = "/v1/chat/completions", "/v1/completions"
ASK = [{"role": "user", "content": "Say something."}]


def post(server, path=CHAT, **body):
    asked = {"max_tokens": 2, "temperature": 0, **body}
    asked.setdefault("prompt" if path == TEXT else "messages", "x" if path == TEXT else ASK)
    return server.http.post(server.url + path, json=asked)


def said(server, *messages: tuple[str, str], **more) -> tuple[str, int]:
    """(answer, prompt tokens) to messages written as (role, text)."""
    asked = [{"role": role, "content": text} for role, text in messages]
    reply = post(server, messages=asked, **{"max_tokens": 8, **more})
    assert reply.status_code == 200, reply.text
    body = reply.json()
    return body["choices"][0]["message"]["content"], body["usage"]["prompt_tokens"]


@pytest.mark.parametrize(
    "roles",
    [
        "system",
        "developer",
        "assistant",
        "user system",
        "user developer",
        "user system user",
        "assistant user",
        "system assistant user",
        "user assistant assistant user",
        "user user assistant system system user",
        "user assistant system assistant user developer",
        "user assistant",
        "assistant assistant",
    ],
)
@pytest.mark.parametrize("path", [CHAT, "/chat/completions"])
def test_roles_come_in_any_order(server, roles, path):
    messages = [{"role": role, "content": f"I am {role}"} for role in roles.split()]
    reply = post(server, path, messages=messages)
    assert reply.status_code == 200, reply.text


def test_nothing_of_what_was_said_is_lost(server):
    short = said(server, ("user", "a"), ("assistant", "b"), ("user", "c"))[1]
    for role in ("system", "developer", "user", "assistant"):
        for at in range(4):
            turns = [("user", "a"), ("assistant", "b"), ("user", "c")]
            turns.insert(at, (role, "x" * 20))
            assert said(server, *turns)[1] >= short + 20, (role, at)


def test_developer_means_system_and_neighbours_are_one(server):
    system = said(server, ("system", "Be brief."), ("user", "Hi"))
    assert said(server, ("developer", "Be brief."), ("user", "Hi")) == system
    assert said(server, ("system", "Be"), ("system", "brief."), ("user", "Hi")) == said(
        server, ("system", "Be\n\nbrief."), ("user", "Hi")
    )
    assert said(server, ("user", "a"), ("assistant", "b"), ("assistant", "c"), ("user", "d")) == (
        said(server, ("user", "a"), ("assistant", "b\n\nc"), ("user", "d"))
    )


def test_an_answer_that_was_begun_is_continued(server):
    whole, _ = said(server, ("user", "Hi"), max_tokens=20)
    begun = ("user", "Hi"), ("assistant", whole[:8])
    assert said(server, *begun, max_tokens=12)[0] == whole[8:]
    assert said(server, ("user", "Hi"), ("assistant", ""), max_tokens=20)[0] == whole


HISTORY = [
    {"reasoning_content": "hm"},
    {"id": "msg_1", "created_at": 5, "tool_calls": []},
    {"refusal": None, "annotations": [], "audio": None, "function_call": None},
    {"name": "me"},
    {"reasoning": {"steps": [1]}, "metadata": {"a": "b"}, "logprobs": None},
    {"content": [{"type": "text", "text": "b", "annotations": [], "cache_control": {"a": 1}}]},
    {"content": [{"type": "refusal", "refusal": "b"}]},
    {"content": None, "refusal": "b"},
]


@pytest.mark.parametrize("more", HISTORY, ids=",".join)
def test_messages_of_a_history_may_have_more_fields(server, more):
    def answer(assistant: dict) -> str:
        messages = [*ASK, {"role": "assistant", "content": "b", **assistant}, *ASK]
        reply = post(server, messages=messages)
        assert reply.status_code == 200, reply.text
        return reply.json()["choices"][0]["message"]["content"]

    assert answer(more) == answer({})


def test_an_answer_without_content_is_empty(server):
    messages = [*ASK, {"role": "assistant", "content": None}, *ASK]
    assert post(server, messages=messages).status_code == 200
    refused = post(server, messages=[{"role": "user", "content": None}]).json()["error"]
    assert refused["message"] == "messages.0.content: must be given"


NOTHING_ASKED = [
    (CHAT, {"tools": [], "tool_choice": "auto", "parallel_tool_calls": True}),
    (CHAT, {"functions": [], "function_call": "none"}),
    (CHAT, {"frequency_penalty": 0, "presence_penalty": 0.0, "logit_bias": {}}),
    (CHAT, {"logit_bias": {"50256": 0}}),
    (CHAT, {"response_format": {"type": "text"}, "modalities": ["text"]}),
    (CHAT, {"store": False, "metadata": {"a": "b"}, "user": "me", "service_tier": "auto"}),
    (CHAT, {"reasoning_effort": "none", "verbosity": "medium", "top_logprobs": 0}),
    (CHAT, {"stream_options": None, "stop": None, "n": None, "seed": None, "stream": None}),
    (CHAT, {"an_option_of_next_year": None, "repetition_penalty": None}),
    (CHAT, {"prompt_cache_key": "k", "prompt_cache_retention": "24h", "safety_identifier": "s"}),
    (CHAT, {"top_p": 0}),
    (TEXT, {"top_p": 0.0, "suffix": None, "echo": None, "best_of": 1, "n": 1}),
    (TEXT, {"suffix": "", "logit_bias": {}, "frequency_penalty": 0, "an_option": None}),
    ("/chat/completions", {"an_option": None, "top_p": 0, "model": None}),
]


@pytest.mark.parametrize(("path", "more"), NOTHING_ASKED, ids=lambda v: str(v)[:60])
def test_options_that_ask_for_nothing_pass(server, path, more):
    reply = post(server, path, **more)
    assert reply.status_code == 200, reply.text


def test_top_p_of_nothing_takes_the_likeliest(server):
    greedy = post(server, max_tokens=12).json()["choices"][0]["message"]
    drawn = post(server, max_tokens=12, top_p=0, temperature=5, n=3, top_k=0).json()["choices"]
    assert [choice["message"] for choice in drawn] == [greedy] * 3


def user(part: dict) -> dict:
    return {"messages": [{"role": "user", "content": [{"type": "text", "text": "a"}, part]}]}


IMAGE = {"type": "image_url", "image_url": {"url": "data:image/png;base64,AAAA"}}
CALL = {"id": "1", "type": "function", "function": {"name": "f", "arguments": "{}"}}
NOT_SUPPORTED = [
    (CHAT, {"tools": [{"type": "function", "function": {"name": "f"}}]}, "tools", "tools"),
    (CHAT, {"tool_choice": "required"}, "tool_choice", "tool_choice"),
    (CHAT, {"functions": [{"name": "f"}]}, "functions", "functions"),
    (CHAT, {"logit_bias": {"5": -100}}, "logit_bias", "logit_bias"),
    (CHAT, {"frequency_penalty": 0.5}, "frequency_penalty", "frequency_penalty"),
    (CHAT, {"presence_penalty": -1}, "presence_penalty", "presence_penalty"),
    (CHAT, {"response_format": {"type": "json_object"}}, "response_format", "response_format"),
    (CHAT, {"modalities": ["text", "audio"]}, "modalities", "modalities"),
    (CHAT, {"audio": {"voice": "a"}}, "audio", "audio"),
    (CHAT, {"store": True}, "store", "store"),
    (CHAT, {"reasoning_effort": "high"}, "reasoning_effort", "reasoning_effort"),
    (CHAT, {"prediction": {"type": "content", "content": "x"}}, "prediction", "prediction"),
    (CHAT, user(IMAGE), "messages", "messages.0.content.1: 'image_url'"),
    (CHAT, user({"type": "input_audio", "input_audio": {}}), "messages", "'input_audio'"),
    (CHAT, user({"type": "file", "file": {}}), "messages", "'file'"),
    (
        CHAT,
        {"messages": [*ASK, {"role": "assistant", "content": None, "tool_calls": [CALL]}, *ASK]},
        "messages",
        "messages.1.tool_calls",
    ),
    (
        CHAT,
        {"messages": [*ASK, {"role": "tool", "tool_call_id": "1", "content": "2"}]},
        "messages",
        "the role 'tool'",
    ),
    (TEXT, {"suffix": "end"}, "suffix", "suffix"),
    (TEXT, {"best_of": 3}, "best_of", "best_of"),
    (TEXT, {"logit_bias": {"5": 1}}, "logit_bias", "logit_bias"),
    ("/chat/completions", user(IMAGE), "messages", "'image_url'"),
]


@pytest.mark.parametrize(
    ("path", "more", "param", "named"), NOT_SUPPORTED, ids=lambda v: str(v)[:40]
)
def test_what_cannot_be_honoured_is_named(server, path, more, param, named):
    reply = post(server, path, **more)
    assert reply.status_code == 400, reply.text
    error = reply.json()["error"]
    assert error["param"] == param and error["message"].startswith(param)
    assert named in error["message"], error["message"]
    assert "not supported" in error["message"]
    assert "Input should" not in error["message"] and "List should" not in error["message"]


def test_a_misspelt_option_is_not_ignored(server):
    error = post(server, temprature=0.5).json()["error"]
    assert error["param"] == "temprature" and error["code"] == "unknown_parameter"


N_BAD = 150_000  # as many as 4 MiB hold, about
HEAVY = {
    "wrong ids": (TEXT, {"prompt": [1] + ["a"] * N_BAD}, "prompt"),
    "wrong prompts": (TEXT, {"prompt": ["a"] + [1] * N_BAD}, "prompt"),
    "lists of what is no id": (TEXT, {"prompt": [[1.5]] * N_BAD}, "prompt"),
    "null ids": (TEXT, {"prompt": [None] * N_BAD}, "prompt"),
    "one long list": (TEXT, {"prompt": [["a"] * N_BAD]}, "prompt"),
    "no parts": (CHAT, {"messages": [{"role": "user", "content": [1] * N_BAD}]}, "messages"),
    "empty parts": (CHAT, {"messages": [{"role": "user", "content": [{}] * N_BAD}]}, "messages"),
    "wrong messages": (CHAT, {"messages": [1] * N_BAD}, "messages"),
    "unknown fields": (CHAT, {f"field {number}": 1 for number in range(N_BAD)}, "field 0"),
    "wrong stops": (CHAT, {"stop": [1] * N_BAD}, "stop"),
}


@pytest.mark.parametrize("name", HEAVY)
def test_a_body_full_of_mistakes_is_refused_for_the_first(server, name):
    """Reporting each of them would hold up the server for minutes: the client's timeout is 30 s."""
    path, more, param = HEAVY[name]
    reply = post(server, path, **more)
    error = reply.json()["error"]
    assert reply.status_code == 400 and error["param"] == param and len(error["message"]) < 200


def test_a_message_of_very_many_parts(server):
    part = {"type": "text", "text": ""}
    reply = post(server, messages=[{"role": "user", "content": [part] * (N_BAD - 20_000)}])
    assert reply.status_code == 400 and reply.json()["error"]["code"] == "context_length_exceeded"


@pytest.mark.parametrize(
    ("more", "said"),
    [
        ({"temperature": -1}, "temperature=-1: must be greater than or equal to 0"),
        ({"n": "two"}, "n='two': must be a valid integer"),
        ({"messages": []}, "messages=list of 0: must have at least 1 item, not 0"),
        ({"messages": ["hi"]}, "messages.0='hi': must be an object"),
        ({"messages": [{"content": "x"}]}, "messages.0.role: must be given"),
        (
            {"messages": [{"role": "user", "content": [{"text": "x"}]}]},
            "content.0.type: must be given",
        ),
        ({"messages": [{"role": "user", "content": [{"type": "text"}]}]}, "0.text: must be given"),
        ({"stop": ["x"] * 17}, "stop=list of 17: must have at most 16 items, not 17"),
        ({"messages": [{"role": "user", "content": ["x"]}]}, "content.0='x': must be an object"),
        ({"stop": [""]}, "stop.0='': must have at least 1 character"),
        ({"stream_options": {"usage": 1}, "stream": True}, "stream_options.usage: this server"),
    ],
)
def test_mistakes_are_told_in_plain_words(server, more, said):
    error = post(server, **more).json()["error"]
    assert said in error["message"]
    for word in ("Input", "List should", "String should", "instance of", "after validation"):
        assert word not in error["message"]
