"""Messages in any order become a prompt that fits: the oldest turns go first."""

from __future__ import annotations

import re

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from nanochat.tokenizer import Tokenizer
from nanochat.tokenizer.chat_prompt import fit_messages

TOKENIZER = Tokenizer.byte_level()


def turn(question: str, answer: str) -> list[dict]:
    return [{"role": "user", "content": question}, {"role": "assistant", "content": answer}]


def ask(question: str) -> list[dict]:
    return [{"role": "user", "content": question}]


def test_what_fits_is_rendered_whole():
    messages = turn("hi", "hello") + turn("1+1", "2") + ask("bye")
    fitted = fit_messages(TOKENIZER, messages, 1000)
    assert (
        fitted.ids == TOKENIZER.render_for_completion({"messages": messages})
        and fitted.dropped_turns == 0
    )


words = st.text(alphabet="ab <|", min_size=1, max_size=12)


@settings(max_examples=150, deadline=None)
@given(
    st.lists(st.tuples(words, words), max_size=8),
    words,
    st.one_of(st.none(), words),
    st.integers(20, 120),
)
def test_oldest_turns_go_first_and_the_system_message_stays(turns, question, system, limit):
    rest = [message for pair in turns for message in turn(*pair)] + ask(question)
    head = [] if system is None else [{"role": "system", "content": system}]

    def whole(first_turn: int) -> list[int]:
        return TOKENIZER.render_for_completion({"messages": head + rest[2 * first_turn :]})

    fits = [n for n in range(len(turns) + 1) if len(whole(n)) <= limit]
    if not fits:
        with pytest.raises(ValueError, match="the last message takes"):
            fit_messages(TOKENIZER, head + rest, limit)
        return
    fitted = fit_messages(TOKENIZER, head + rest, limit)
    assert fitted.dropped_turns == fits[0] and fitted.ids == whole(fits[0])


class Counting:
    """A tokenizer that counts the texts it is asked to encode."""

    def __init__(self) -> None:
        self.n_encoded = 0
        self.encode_special = TOKENIZER.encode_special

    def encode(self, text: str) -> list[int]:
        self.n_encoded += 1
        return TOKENIZER.encode(text)


def test_a_long_history_costs_no_more_than_what_fits():
    tokenizer = Counting()
    fitted = fit_messages(tokenizer, turn("question", "answer") * 10_000 + ask("more"), 200)
    assert fitted.dropped_turns > 9_980 and tokenizer.n_encoded < 60


S, D = ({"role": role, "content": "rules"} for role in ("system", "developer"))
U, V = ask("one") + ask("two")
A, B = ({"role": "assistant", "content": text} for text in ("yes", "no"))
EMPTY = {"role": "system", "content": ""}


@pytest.mark.parametrize(
    ("messages", "rendered"),
    [
        ([U], "U(one)A("),
        ([S, U], "U(rules\n\none)A("),
        ([D, U], "U(rules\n\none)A("),
        ([S, D, U], "U(rules\n\nrules\n\none)A("),
        ([EMPTY, U], "U(one)A("),
        ([S], "U(rules)A("),
        ([U, V], "U(one\n\ntwo)A("),
        ([U, S], "U(one\n\nrules)A("),
        ([U, S, A, V], "U(one\n\nrules)A(yes)U(two)A("),
        ([U, A, D, V], "U(one)A(yes)U(rules\n\ntwo)A("),
        ([U, A, S], "U(one)A(yes)U(rules)A("),
        ([A, U], "U()A(yes)U(one)A("),
        ([S, A, U], "U(rules)A(yes)U(one)A("),
        ([U, A, B, V], "U(one)A(yes\n\nno)U(two)A("),
        ([U, A], "U(one)A(yes"),
        ([U, A, B], "U(one)A(yes\n\nno"),
        ([A], "U()A(yes"),
        ([EMPTY], "U()A("),
        ([U, {"role": "assistant", "content": ""}], "U(one)A("),
        ([U, {"role": "assistant", "content": ""}, V], "U(one)A()U(two)A("),
        ([U, {"role": "assistant", "content": []}, V], "U(one)A()U(two)A("),
    ],
)
def test_messages_in_any_order(messages, rendered):
    """U( ) and A( ) stand for the delimiters of user and assistant."""
    spelled = {"U(": "<|user_start|>", "A(": "<|assistant_start|>"}
    expected = "<|bos|>" + rendered.replace(")A(", "<|user_end|>A(").replace(
        ")U(", "<|assistant_end|>U("
    )
    for short, token in spelled.items():
        expected = expected.replace(short, token)
    fitted = fit_messages(TOKENIZER, messages, 1000)
    assert TOKENIZER.decode(fitted.ids) == expected and fitted.dropped_turns == 0


def test_calls_in_neighbouring_answers_stay_calls():
    parts = [{"type": "python", "text": "1+1"}, {"type": "python_output", "text": "2"}]
    messages = [U, A, {"role": "assistant", "content": parts}, B, V]
    assert TOKENIZER.decode(fit_messages(TOKENIZER, messages, 1000).ids) == (
        "<|bos|><|user_start|>one<|user_end|><|assistant_start|>yes<|python_start|>1+1<|python_end|>"
        "<|output_start|>2<|output_end|>no<|assistant_end|><|user_start|>two<|user_end|>"
        "<|assistant_start|>"
    )


anyone = st.fixed_dictionaries(
    {
        "role": st.sampled_from(["system", "developer", "user", "assistant"]),
        "content": st.sampled_from(["", "a", "<|bos|>", "b\n"]),
    }
)


@settings(max_examples=300, deadline=None)
@given(st.lists(anyone, min_size=1, max_size=9))
def test_any_order_has_the_shape_models_are_trained_on(messages):
    ids = fit_messages(TOKENIZER, messages, 1000).ids
    specials = "".join(TOKENIZER.decode([token]) for token in ids if token >= 256)
    turn = re.escape("<|user_start|><|user_end|><|assistant_start|>")
    assert re.fullmatch(rf"<\|bos\|>({turn}<\|assistant_end\|>)*{turn}", specials)
    text = "".join(TOKENIZER.decode([token]) for token in ids if token < 256)
    assert sorted(text.replace("\n", "")) == sorted(
        "".join(m["content"] for m in messages).replace("\n", "")
    )


@pytest.mark.parametrize(
    "messages",
    [
        [],
        "hi",
        [{"role": "user"}],
        ["hi"],
        [{"role": "tool", "content": "x"}],
        [{"role": "user", "content": None}],
        [{"role": "user", "content": [{"type": "text", "text": "x"}]}],
        [{"role": "assistant", "content": [{"type": "image", "text": "x"}]}],
    ],
)
def test_malformed_messages_are_refused(messages):
    with pytest.raises(ValueError, match="^messages: "):
        fit_messages(TOKENIZER, messages, 100)
