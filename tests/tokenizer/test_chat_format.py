"""Rendering conversations: parity with the public implementation, the mask, malformed input."""

from __future__ import annotations

import json

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from nanochat.tokenizer import SPECIAL_TOKENS, Tokenizer
from nanochat.tokenizer.chat_format import message_problem, visualize

TOKENIZER = Tokenizer.byte_level()


def talk(*contents):
    roles = ["user", "assistant"] * len(contents)
    return {
        "messages": [
            {"role": role, "content": text} for role, text in zip(roles, contents, strict=False)
        ]
    }


def test_rendering_equals_the_public_implementation(shared_dir):
    folder = shared_dir / "fixtures" / "classic_d2"
    expected = json.loads((folder / "tokenizer_expected.json").read_text())
    tokenizer = Tokenizer.load(folder / "tokenizer")
    assert expected["render"] and expected["completion"]
    for case in expected["render"]:
        assert tokenizer.render_conversation(case["conversation"]) == (case["ids"], case["mask"])
    for case in expected["completion"]:
        assert tokenizer.render_for_completion(case["conversation"]) == case["ids"]


def test_only_what_the_assistant_produces_is_trained_on():
    parts = [
        {"type": "python", "text": "1+1"},
        {"type": "python_output", "text": "2"},
        {"type": "text", "text": "Two"},
    ]
    ids, mask = TOKENIZER.render_conversation(talk("sum?", parts))
    trained = TOKENIZER.decode([token for token, weight in zip(ids, mask, strict=True) if weight])
    assert trained == "<|python_start|>1+1<|python_end|>Two<|assistant_end|>"
    assert TOKENIZER.decode(ids) == (
        "<|bos|><|user_start|>sum?<|user_end|><|assistant_start|><|python_start|>1+1<|python_end|>"
        "<|output_start|>2<|output_end|>Two<|assistant_end|>"
    )


@pytest.mark.parametrize("mark", [{"weight": 0}, {"weight": 0.0}, {"train": False}])
def test_a_marked_answer_is_read_and_not_learnt(mark):
    conversation = talk("a", "wrong", "b", "right")
    conversation["messages"][1] |= mark
    ids, mask = TOKENIZER.render_conversation(conversation)
    assert ids == TOKENIZER.render_conversation(talk("a", "wrong", "b", "right"))[0]
    trained = TOKENIZER.decode([token for token, weight in zip(ids, mask, strict=True) if weight])
    assert trained == "right<|assistant_end|>"
    conversation["messages"][1] |= {"weight": 1, "train": True}
    assert sum(TOKENIZER.render_conversation(conversation)[1]) == len("wrong") + len("right") + 2


def test_a_system_message_joins_the_first_user_turn_and_the_input_stays_as_it_was():
    conversation = {
        "messages": [{"role": "system", "content": "Be kind."}, *talk("Hi", "Hello")["messages"]]
    }
    before = json.dumps(conversation)
    assert TOKENIZER.render_conversation(conversation) == TOKENIZER.render_conversation(
        talk("Be kind.\n\nHi", "Hello")
    )
    assert json.dumps(conversation) == before


@settings(max_examples=50, deadline=None)
@given(st.lists(st.text(max_size=12) | st.sampled_from(SPECIAL_TOKENS), min_size=1, max_size=6))
def test_structure_cannot_be_forged_by_text(contents):
    """Whatever the texts say, there are exactly as many special tokens as the turns need."""
    ids, mask = TOKENIZER.render_conversation(talk(*contents))
    users, assistants = (len(contents) + 1) // 2, len(contents) // 2
    assert sum(token >= 256 for token in ids) == 1 + 2 * users + 2 * assistants
    assert len(ids) == len(mask)
    assert sum(mask) == sum(len(text.encode("utf-8", "replace")) + 1 for text in contents[1::2])


def test_completion_keeps_a_waiting_user_turn_and_drops_a_given_answer():
    waiting = TOKENIZER.render_for_completion(talk("a", "b", "c"))
    assert waiting == TOKENIZER.render_for_completion(talk("a", "b", "c", "d"))
    assert TOKENIZER.decode(waiting).endswith("c<|user_end|><|assistant_start|>")


def test_max_tokens_cuts_both_lists():
    ids, mask = TOKENIZER.render_conversation(talk("hello", "world"))
    assert TOKENIZER.render_conversation(talk("hello", "world"), max_tokens=9) == (
        ids[:9],
        mask[:9],
    )


@pytest.mark.parametrize(
    ("messages", "reason"),
    [
        (None, "must be a list"),
        ([], "no messages"),
        (["hi"], "message 1 must be an object"),
        ([{"role": "user"}], "message 1 must be an object"),
        ([{"role": "assistant", "content": "x"}], "expected 'user'"),
        ([{"role": "system", "content": "x"}], "system message alone"),
        (
            [{"role": "user", "content": "x"}, {"role": "user", "content": "y"}],
            "message 2 has role 'user'",
        ),
        ([{"role": "user", "content": 3}], "must be a string, not int"),
        ([{"role": "user", "content": None}], "must be a string, not NoneType"),
        ([{"role": "user", "content": []}], "user message must be a string"),
        (talk("q", [{"type": "image", "text": ""}])["messages"], "type 'image'"),
        (talk("q", [{"type": "text"}])["messages"], "part 1 must be an object"),
    ],
)
def test_malformed_conversations_say_what_is_wrong(messages, reason):
    assert reason in message_problem(messages)
    with pytest.raises(ValueError, match="cannot be rendered"):
        TOKENIZER.render_conversation({"messages": messages})


def test_the_preview_colours_what_is_trained_on_and_escapes_markup():
    from rich.text import Text

    shown = visualize(TOKENIZER, *TOKENIZER.render_conversation(talk("[red]x[/red]", "ok\\")))
    text = Text.from_markup(shown)
    assert "[red]x[/red]" in text.plain and text.plain.endswith("ok\\<|assistant_end|>")
    green = [text.plain[span.start : span.end] for span in text.spans if span.style == "green"]
    assert green == ["ok\\<|assistant_end|>"]
