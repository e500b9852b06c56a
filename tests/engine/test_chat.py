"""Conversations: rendering, dropping of old turns, and a session over a tiny model."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from nanochat.engine import ChatSession, Engine, SamplingParams, fit_messages
from nanochat.engine.chat import answer_room
from nanochat.tokenizer import SPECIAL_TOKENS, Tokenizer

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


words = st.text(alphabet="ab <|", min_size=0, max_size=12)


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


def test_a_long_history_costs_no_more_than_what_fits(monkeypatch):
    rendered = []
    original = TOKENIZER.render_conversation
    monkeypatch.setattr(
        TOKENIZER, "render_conversation", lambda c, m=None: rendered.append(1) or original(c, m)
    )
    fitted = fit_messages(TOKENIZER, turn("question", "answer") * 10_000 + ask("more"), 200)
    assert fitted.dropped_turns > 9_980 and len(rendered) < 30


@pytest.mark.parametrize(
    "messages",
    [
        [],
        "hi",
        turn("a", "b"),
        [{"role": "assistant", "content": "x"}],
        ask("a") + ask("b"),
        [{"role": "user"}],
    ],
)
def test_malformed_messages_are_refused(messages):
    with pytest.raises(ValueError, match="^messages: "):
        fit_messages(TOKENIZER, messages, 100)


@pytest.fixture
def session(classic) -> ChatSession:
    return ChatSession(
        Engine(classic, TOKENIZER), params=SamplingParams(temperature=1.0, seed=1, max_tokens=20)
    )


def test_a_session_remembers_its_turns(session):
    for question in ("hello", "and then?"):
        prompt = [*session._prompt(type("T", (), {"question": []})())][:-1]  # what came before
        events = list(session.ask(question))
        assert events[-1].finish_reason in ("stop", "length")
        assert events[0].request.prompt[: len(prompt)] == prompt
    assert [TOKENIZER.decode(t.question[1:-1]) for t in session.turns] == ["hello", "and then?"]
    session.clear()
    assert session.turns == []


def test_special_tokens_in_a_message_stay_text(session):
    text = "".join(SPECIAL_TOKENS)
    request = next(iter(session.ask(text))).request
    specials = [token for token in request.prompt if token in session.engine.special.all]
    names = ["<|bos|>", "<|user_start|>", "<|user_end|>", "<|assistant_start|>"]
    assert specials == [TOKENIZER.encode_special(name) for name in names]
    assert TOKENIZER.decode(request.prompt).count("<|bos|>") == 2
    fitted = fit_messages(TOKENIZER, turn(text, text) + ask(text), 1000)
    assert sum(token in session.engine.special.all for token in fitted.ids) == 8


def test_old_turns_are_dropped_and_reported(session):
    context = session.engine.context
    room = context - answer_room(context, 20)
    dropped = []
    for number in range(12):
        events = list(session.ask(f"{number}" * 60))
        assert len(events[0].request.prompt) <= room
        dropped.append(session.dropped_turns)
    assert dropped[0] == 0 and sum(dropped) > 0 and len(session.turns) == 12 - sum(dropped)
    assert TOKENIZER.decode(session.turns[-1].question).count("11") == 60


def test_a_message_longer_than_the_context_is_refused_and_forgotten(session):
    list(session.ask("hello"))
    with pytest.raises(
        ValueError, match="the message takes 604 tokens, the context has room for 492"
    ):
        session.ask("x" * 600)
    assert len(session.turns) == 1


def test_stopping_an_answer_keeps_what_was_said(session):
    session.params = SamplingParams(temperature=0, tools="off", ignore_end=True)
    stream = session.ask("go on for ever")
    said = [next(stream).token for _ in range(5)]
    stream.close()
    assert session.turns[-1].answer == said
    assert session.engine.stats().pages_used == 0 and not session.engine.has_work


def test_the_next_turn_reuses_the_last(session):
    list(session.ask("a long first message " * 5))
    events = list(session.ask("short"))
    request = events[0].request
    assert request.n_reused >= len(request.prompt) - 16 - len(TOKENIZER.encode("short")) - 6
