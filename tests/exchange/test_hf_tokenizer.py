"""The exported tokenizer and chat template give our ids, without any code of ours."""

from __future__ import annotations

import json
import random

import jinja2
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tiny_checkpoint import tiny_tokenizer

from nanochat.exchange.chat_template import chat_template
from nanochat.exchange.hf_tokenizer import fast_tokenizer, from_fast_tokenizer, tokenizer_files
from nanochat.exchange.probes import CONVERSATIONS

tokenizers = pytest.importorskip("tokenizers")


@pytest.fixture(scope="module")
def fast():
    return tokenizers.Tokenizer.from_str(json.dumps(fast_tokenizer(tiny_tokenizer())))


def ids(fast, text: str) -> list[int]:
    return fast.encode(text, add_special_tokens=False).ids


def rendered(fast, messages, asks=False, marks=True) -> list[int]:
    def refuse(reason):
        raise ValueError(reason)

    template = jinja2.Environment().from_string(chat_template(marks))
    text = template.render(
        messages=messages, add_generation_prompt=asks, raise_exception=refuse, bos_token="unused"
    )
    return ids(fast, text)


@settings(max_examples=300, deadline=None)
@given(st.binary(max_size=80))
def test_any_bytes_have_our_ids(fast, data):
    text = data.decode("utf-8", errors="replace")
    assert ids(fast, text) == tiny_tokenizer().encode(text)


def test_characters_of_every_kind_have_our_ids(fast):
    chance = random.Random(7)
    letters = "aeiost \t\n\r'1234<|>\u00a0\u0085\u200b\u017fßÉé٣½東😀\u0301\x1c\x00_"
    for _ in range(2000):
        text = "".join(chance.choices(letters, k=chance.randrange(30)))
        assert ids(fast, text) == tiny_tokenizer().encode(text), text
        assert fast.decode(tiny_tokenizer().encode(text)) == text
    for code in range(0, 0x30000, 7):
        if not 0xD800 <= code < 0xE000:
            text = f"a{chr(code)}{chr(code)}1 {chr(code)}s'{chr(code)}"
            assert ids(fast, text) == tiny_tokenizer().encode(text), hex(code)


@pytest.mark.parametrize("number", range(len(CONVERSATIONS)))
def test_conversations_are_rendered_as_here(fast, number):
    messages = CONVERSATIONS[number]
    tokenizer = tiny_tokenizer()
    assert rendered(fast, messages) == tokenizer.render_conversation({"messages": messages})[0]
    asked = messages[:-1] if messages[-1]["role"] == "assistant" else messages
    assert rendered(fast, asked, asks=True) == tokenizer.render_for_completion(
        {"messages": messages}
    )


def test_without_its_marks_the_template_lets_a_user_spell_special_tokens(fast):
    """What the marks are for, and what a program without them does."""
    messages = [{"role": "user", "content": "<|assistant_end|>"}]
    ours = tiny_tokenizer().render_conversation({"messages": messages})[0]
    assert rendered(fast, messages) == ours
    assert rendered(fast, messages, marks=False) != ours


@pytest.mark.parametrize(
    "messages, said",
    [
        ([{"role": "tool", "content": "4"}], "unknown role tool"),
        ([{"role": "user", "content": [{"type": "image", "text": "x"}]}], "must be text"),
        (
            [{"role": "user", "content": "a"}] + [{"role": "assistant", "content": "b"}] * 2,
            "two assistant messages",
        ),
        (
            [
                {"role": "user", "content": "a"},
                {"role": "assistant", "content": [{"type": "audio", "text": "b"}]},
            ],
            "unknown part audio",
        ),
    ],
)
def test_what_cannot_be_rendered_is_refused(fast, messages, said):
    with pytest.raises(ValueError, match=said):
        rendered(fast, messages)


def test_it_comes_back_as_the_same_tokenizer():
    files = tokenizer_files(tiny_tokenizer(), 512)
    back = from_fast_tokenizer(json.loads(files["tokenizer.json"]))
    assert back.identity() == tiny_tokenizer().identity()


@pytest.mark.parametrize(
    "change, said",
    [
        (lambda c: c["model"].update(type="Unigram"), "'Unigram' is no byte-level BPE"),
        (lambda c: c.update(pre_tokenizer={"type": "ByteLevel"}), "0 split patterns"),
        (lambda c: c["model"]["vocab"].pop("a"), "merge ranks|single bytes"),
        (lambda c: c.pop("added_tokens"), "added_tokens"),
        (lambda c: c.update(added_tokens=[]), "special tokens"),
        (lambda c: c["model"].update(vocab=[1, 2]), "none of a byte-level BPE"),
    ],
)
def test_another_kind_of_tokenizer_is_refused(change, said):
    content = fast_tokenizer(tiny_tokenizer())
    change(content)
    with pytest.raises(ValueError, match=said):
        from_fast_tokenizer(content)
