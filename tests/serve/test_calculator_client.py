"""Answers that use the calculator, read by the official client's own accumulators."""

from __future__ import annotations

import json

import pytest

openai = pytest.importorskip(
    "openai", reason="the official client is not installed: pip install openai"
)

ASK = [{"role": "user", "content": "What is 6*7, and 1+1?"}]
ASKED = {"model": "sft:d2", "messages": ASK, "max_tokens": 60, "temperature": 0}
CALLS = [
    {"type": "text", "text": "6*7="},
    {"type": "python", "text": "6*7"},
    {"type": "python_output", "text": "42"},
    {"type": "text", "text": "42 1+1="},
    {"type": "python", "text": "1+1"},
    {"type": "python_output", "text": "2"},
    {"type": "text", "text": "2!"},
]


@pytest.fixture
def calculating(own_server, scripted, tokenizer):
    """A server whose model answers with CALLS: it writes the calls, the calculator the results."""
    special = tokenizer.encode_special
    script: list[int] = []
    for part in CALLS:
        ids = tokenizer.encode(part["text"])
        if part["type"] == "python":
            ids = [special("<|python_start|>"), *ids, special("<|python_end|>")]
        elif part["type"] == "python_output":
            ids = [0] * (len(ids) + 2)  # forced by the tool
        script += ids
    running = own_server(native=False)
    scripted(running.engine, [*script, special("<|assistant_end|>")])
    return running


def client_of(running):
    url = f"{running.url}/v1"
    return openai.OpenAI(base_url=url, api_key="unused", max_retries=0, timeout=30)


@pytest.mark.parametrize(
    "more", [{}, {"logprobs": True, "top_logprobs": 2}, {"stream_options": {"include_usage": True}}]
)
def test_the_clients_accumulator_reads_the_stream(calculating, more):
    with client_of(calculating).chat.completions.stream(**ASKED, **more) as stream:
        seen = [event.type for event in stream]
        final = stream.get_final_completion()
    choice = final.choices[0]
    assert "content.delta" in seen and choice.finish_reason == "stop"
    assert choice.message.content == "6*7=42 1+1=2!"
    if "logprobs" in more:
        tokens = [entry.token for entry in choice.logprobs.content]
        assert "".join(tokens) == choice.message.content


def test_parts_of_a_stream_equal_those_of_the_whole_message(calculating):
    client = client_of(calculating)
    whole = client.chat.completions.create(**ASKED).choices[0].message
    assert whole.content == "6*7=42 1+1=2!" and whole.parts == CALLS
    streamed: list[dict] = []
    for chunk in client.chat.completions.create(**ASKED, stream=True):
        delta = chunk.choices[0].delta
        assert set(delta.to_dict()) <= {"role", "content"}
        text = [{"type": "text", "text": delta.content}] if delta.content else []
        for part in [*text, *getattr(chunk, "nanochat", {}).get("parts", [])]:
            if streamed and streamed[-1]["type"] == part["type"]:
                streamed[-1]["text"] += part["text"]
            else:
                streamed.append(dict(part))
    assert streamed == CALLS


def test_what_the_model_said_can_be_sent_back(calculating):
    client = client_of(calculating)
    message = client.chat.completions.create(**ASKED).choices[0].message
    said = [*ASK, message.model_dump(), *ASK]
    again = client.chat.completions.create(**{**ASKED, "messages": said})
    plain = [*ASK, {"role": "assistant", "content": message.content}, *ASK]
    other = client.chat.completions.create(**{**ASKED, "messages": plain})
    more = again.usage.prompt_tokens - other.usage.prompt_tokens
    assert more == len("6*742" + "1+12") + 8  # with four delimiters for each call


def test_returning_the_call_ends_with_a_reason_openai_knows(calculating):
    returning = {"extra_body": {"tools_use": "return"}}
    reply = client_of(calculating).chat.completions.create(**ASKED, **returning)
    assert reply.choices[0].finish_reason == "stop"
    assert reply.nanochat["finish_detail"] == "the answer calls a tool"
    assert reply.choices[0].message.parts == CALLS[:2]


def test_the_pages_stream_names_the_calculator(calculating):
    body = {"messages": ASK, "max_tokens": 60, "temperature": 0}
    reply = calculating.http.post(f"{calculating.url}/chat/completions", json=body)
    events = [json.loads(line[6:]) for line in reply.text.splitlines() if line]
    assert "".join(event.get("python", "") for event in events) == "6*71+1"
    assert "".join(event.get("python_output", "") for event in events) == "422"
    assert "".join(event.get("token", "") for event in events) == "6*7=42 1+1=2!"
