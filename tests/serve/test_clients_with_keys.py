"""What people use against a server with accounts: curl, the openai client, LangChain's."""

from __future__ import annotations

import json
import shutil
import subprocess

import pytest

CHAT = {"messages": [{"role": "user", "content": "hi"}], "max_tokens": 5}


def test_curl(team):
    curl = shutil.which("curl")
    if curl is None:
        pytest.skip("curl is not installed")
    anna = team("anna")
    words = [curl, "-sS", f"{anna.url}/v1/chat/completions", "-d", json.dumps(CHAT)]
    refused = json.loads(subprocess.run(words, capture_output=True, check=True).stdout)
    assert refused["error"]["code"] == "not_signed_in"
    words += ["-H", f"Authorization: Bearer {anna.key}"]
    answer = json.loads(subprocess.run(words, capture_output=True, check=True).stdout)
    assert len(answer["choices"][0]["message"]["content"]) == 5


def test_openai(team):
    openai = pytest.importorskip("openai")
    anna = team("anna")
    client = openai.OpenAI(base_url=f"{anna.url}/v1", api_key=anna.key)
    whole = client.chat.completions.create(model="sft", **CHAT)
    assert len(whole.choices[0].message.content) == 5
    stream = client.chat.completions.create(model="sft", stream=True, **CHAT)
    assert sum(len(chunk.choices[0].delta.content or "") for chunk in stream) == 5
    stranger = openai.OpenAI(base_url=f"{anna.url}/v1", api_key="nc-wrong", max_retries=0)
    with pytest.raises(openai.AuthenticationError, match="not known"):
        stranger.models.list()


def test_langchain(team):
    langchain = pytest.importorskip(
        "langchain_openai", reason="langchain-openai is not installed (pip install it to try)"
    )
    anna = team("anna")
    model = langchain.ChatOpenAI(
        base_url=f"{anna.url}/v1", api_key=anna.key, model="sft", max_tokens=5
    )
    assert len(model.invoke("hi").content) == 5
    assert "".join(chunk.content for chunk in model.stream("hi"))
