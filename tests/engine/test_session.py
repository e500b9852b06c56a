"""A session over a tiny model: its turns, what it drops, what it reuses."""

from __future__ import annotations

import pytest

from nanochat.engine import ChatSession, Engine, SamplingParams
from nanochat.tokenizer import SPECIAL_TOKENS, Tokenizer
from nanochat.tokenizer.chat_prompt import answer_room

TOKENIZER = Tokenizer.byte_level()


class Recording(Engine):
    """Remembers the prompts it is asked to answer."""

    def __init__(self, model) -> None:
        super().__init__(model, TOKENIZER)
        self.prompts: list[list[int]] = []

    def stream(self, tokens, params=None, n=1):
        self.prompts.append(list(tokens))
        return super().stream(tokens, params, n)


@pytest.fixture
def session(classic) -> ChatSession:
    params = SamplingParams(temperature=1.0, seed=1, max_tokens=20)
    return ChatSession(Recording(classic), params=params)


def test_a_session_remembers_its_turns(session):
    for question in ("hello", "and then?"):
        events = list(session.ask(question))
        assert events[-1].finish_reason in ("stop", "length")
    first, second = map(TOKENIZER.decode, session.engine.prompts)
    assert first == "<|bos|><|user_start|>hello<|user_end|><|assistant_start|>"
    assert second.startswith(first) and second.endswith(
        "<|assistant_end|><|user_start|>and then?<|user_end|><|assistant_start|>"
    )
    assert (
        session.engine.prompts[1][len(session.engine.prompts[0]) :][: len(session.turns[0].answer)]
        == session.turns[0].answer
    )
    assert [TOKENIZER.decode(t.question[1:-1]) for t in session.turns] == ["hello", "and then?"]
    session.clear()
    assert session.turns == []


def test_special_tokens_in_a_message_stay_text(session):
    text = "".join(SPECIAL_TOKENS)
    next(session.ask(text))
    [prompt] = session.engine.prompts
    specials = [token for token in prompt if token in session.engine.special.all]
    names = ["<|bos|>", "<|user_start|>", "<|user_end|>", "<|assistant_start|>"]
    assert specials == [TOKENIZER.encode_special(name) for name in names]
    assert TOKENIZER.decode(prompt).count("<|bos|>") == 2


def test_old_turns_are_dropped_and_reported(session):
    context = session.engine.context
    room = context - answer_room(context, 20)
    dropped = []
    for number in range(12):
        list(session.ask(f"{number}" * 60))
        assert len(session.engine.prompts[-1]) <= room
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
    n_prompt = len(session.engine.prompts[-1])
    assert events[0].reused >= n_prompt - 16 - len(TOKENIZER.encode("short")) - 6
