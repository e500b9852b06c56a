"""Tools, stop strings and texts through the whole engine, with a model that says what it is told to
say.
"""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from nanochat.engine import Engine, SamplingParams
from nanochat.gpt import GPTConfig
from nanochat.tokenizer import SPECIAL_TOKENS, Tokenizer
from nanochat.tokenizer.stream import AnswerText

PROMPT = [1, 2, 3]
TOKENIZER = Tokenizer.byte_level()


class Script(nn.Module):
    """Stands in for a model: after position p it says `tokens[p - len(PROMPT) + 1]`, whatever it
    reads.
    """

    def __init__(self, tokens: list[int], sequence_len: int = 256) -> None:
        super().__init__()
        self.tokens = tokens
        self.config = GPTConfig(
            sequence_len=sequence_len,
            vocab_size=TOKENIZER.get_vocab_size(),
            n_layer=1,
            n_head=1,
            n_kv_head=1,
            n_embd=2,
        )
        self.compute_dtype = torch.float32
        self.read: list[int] = []

    def get_device(self) -> torch.device:
        return torch.device("cpu")

    def hidden(self, ids: torch.Tensor, cache) -> torch.Tensor:
        self.read += ids[0].tolist()
        said = [
            self.tokens[min(p - len(PROMPT) + 1, len(self.tokens) - 1)] if p >= 2 else 0
            for p in cache.positions(ids.size(1))[0].tolist()
        ]
        return torch.nn.functional.one_hot(torch.tensor([said]), self.config.vocab_size).float()

    def head(self, hidden: torch.Tensor) -> torch.Tensor:
        return hidden


def ids_of(text: str) -> list[int]:
    """Token ids of a text in which special tokens are spelled out."""
    ids: list[int] = []
    for part in text.replace("<|", "\0<|").replace("|>", "|>\0").split("\0"):
        ids += (
            [TOKENIZER.encode_special(part)] if part in SPECIAL_TOKENS else TOKENIZER.encode(part)
        )
    return ids


def answer(script: str, **params):
    engine = Engine(Script(ids_of(script)), TOKENIZER)
    params = SamplingParams(**{"temperature": 0, **params})
    request = engine.submit(PROMPT, params)
    events = list(engine.stream(PROMPT, params))
    [[completion]] = engine.complete([request])
    assert "".join(e.text for e in events) == completion.text
    end = [] if completion.stop_token is None else [completion.stop_token]
    assert [e.token for e in events if e.token is not None] == completion.ids + end
    assert [e.finish_reason for e in events[:-1]] == [None] * (len(events) - 1)
    assert events[-1].finish_reason == completion.finish_reason
    return completion, events


CALL = "12*3=<|python_start|>12*3<|python_end|>"
RESULT = "<|output_start|>36<|output_end|>"


def test_a_tool_call_is_answered_in_the_sequence():
    completion, events = answer(CALL + RESULT + "36 apples<|assistant_end|>")
    assert completion.ids == ids_of(CALL + RESULT + "36 apples")
    assert completion.mask == [1] * len(ids_of(CALL)) + [0] * len(ids_of(RESULT)) + [1] * 9
    assert completion.text == "12*3=36 apples" and completion.finish_reason == "stop"
    kinds = [(piece.kind, piece.text) for event in events for piece in event.pieces]
    assert "".join(text for kind, text in kinds if kind == "python") == "12*3"
    assert "".join(text for kind, text in kinds if kind == "python_output") == "36"


def test_forced_tokens_go_through_the_model_too():
    engine = Engine(Script(ids_of(CALL + RESULT + "!<|assistant_end|>")), TOKENIZER)
    engine.complete([engine.submit(PROMPT, SamplingParams(temperature=0))])
    assert engine.model.read == PROMPT + ids_of(CALL + RESULT + "!")


def test_tools_off_and_returned():
    script = CALL + "and so on<|assistant_end|>"
    completion, _ = answer(script, tools="off")
    assert completion.ids == ids_of(CALL + "and so on") and completion.mask == [1] * len(
        completion.ids
    )
    completion, _ = answer(script, tools="return")
    assert completion.finish_reason == "tool" and completion.ids == ids_of(CALL)


def test_the_limit_counts_forced_tokens():
    n_call = len(ids_of(CALL))
    completion, _ = answer(CALL + RESULT + "36", max_tokens=n_call + 2)
    assert (
        completion.finish_reason == "length"
        and completion.ids == ids_of(CALL + RESULT)[: n_call + 2]
    )
    assert completion.mask == [1] * n_call + [0] * 2
    completion, _ = answer(CALL + RESULT + "36", max_tokens=n_call)
    assert completion.ids == ids_of(CALL)


def test_what_is_no_arithmetic_gets_no_output():
    completion, _ = answer("<|python_start|>import os<|python_end|>ok<|assistant_end|>")
    assert (
        completion.ids == ids_of("<|python_start|>import os<|python_end|>ok")
        and completion.text == "ok"
    )


def test_bos_ends_an_answer_too():
    completion, _ = answer("abc<|bos|>def")
    assert (
        completion.finish_reason == "stop" and completion.stop_token == TOKENIZER.get_bos_token_id()
    )
    assert completion.text == "abc"


def test_generate_shows_forced_tokens_by_their_mask():
    engine = Engine(Script(ids_of(CALL + RESULT + "36<|assistant_end|>")), TOKENIZER)
    columns = list(engine.generate(PROMPT, temperature=0.0))
    assert [tokens[0] for tokens, _ in columns] == ids_of(CALL + RESULT + "36<|assistant_end|>")
    assert [masks[0] for _, masks in columns] == [1] * len(ids_of(CALL)) + [0] * len(
        ids_of(RESULT)
    ) + [1] * 3
    rows, masks = engine.generate_batch(PROMPT, temperature=0.0)
    assert rows == [PROMPT + ids_of(CALL + RESULT + "36")] and len(masks[0]) == len(rows[0])


@pytest.mark.parametrize(
    ("script", "stop", "text"),
    [
        ("one two three", "two", "one "),
        ("one two three", ["three", "two"], "one "),
        ("aaab", "aab", "a"),
        ("ababac", "abac", "ab"),
        ("tail", "tailor", "tail"),
        ("a\n\nb", "\n\n", "a"),
        ("über Äpfel", "Ä", "über "),
        ("stop", "stop", ""),
    ],
)
def test_stop_strings(script, stop, text):
    completion, events = answer(script + "<|assistant_end|>", stop=stop)
    assert completion.text == text and completion.finish_reason == "stop"
    shown = ""
    for event in events:
        shown += event.text
        assert text.startswith(shown), "nothing is shown that has to be taken back"


def test_a_stop_string_is_not_looked_for_in_tool_calls():
    completion, _ = answer(CALL + RESULT + "36<|assistant_end|>", stop=["12*3<", "3="])
    assert completion.text == "12*"
    completion, _ = answer("x<|python_start|>1+1<|python_end|>", stop="1+1", max_tokens=9)
    assert completion.finish_reason == "length"


@settings(max_examples=200, deadline=None)
@given(st.text(max_size=30), st.lists(st.text(min_size=1, max_size=4), max_size=3))
def test_text_in_pieces_is_the_text_before_the_first_stop_string(text, stops):
    text = text.encode("utf-8", "ignore").decode()
    stops = [s for s in (s.encode("utf-8", "ignore").decode() for s in stops) if s]
    answer_text = AnswerText(TOKENIZER, tuple(stops))
    pieces = [
        piece for token in TOKENIZER.encode(text) for piece in answer_text.push(token)
    ] + answer_text.flush()
    shown = "".join(piece.text for piece in pieces)
    if answer_text.stopped_by is None:
        assert shown == text and not any(stop in text for stop in stops)
    else:  # cut at the stop string that was complete first
        end = min(text.find(stop) + len(stop) for stop in stops if stop in text)
        assert text[:end].startswith(shown + answer_text.stopped_by)


def test_characters_are_never_split():
    _, events = answer("🦊é<|assistant_end|>")
    assert [e.text for e in events if e.text] == ["🦊", "é"]
    completion, _ = answer("🦊", max_tokens=2)
    assert completion.text == "\ufffd"


def test_logprobs_of_an_answer():
    completion, events = answer(CALL + RESULT + "!<|assistant_end|>", logprobs=2)
    assert len(completion.logprobs) == len(completion.ids)
    assert [p is None for p in completion.logprobs] == [m == 0 for m in completion.mask]
    scores = [score for event in events for score in event.scores]
    assert [score.token for score in scores] == ids_of("12*3=" + "!"), "what the answer says"
    assert len(scores[0].top) == 2 and scores[0].top[0] == (scores[0].token, scores[0].logprob)


@pytest.mark.parametrize(
    ("script", "stop", "shown"),
    [
        ("one two", "two", "one "),
        ("aab", "ab", "a"),
        ("🦊!stop", "stop", "🦊!"),
        ("a" + CALL.removeprefix("12*3=") + RESULT + "b!!", "!!", "ab"),
        ("tail", "tailor", "tail"),
    ],
)
def test_scores_come_with_the_text_they_belong_to(script, stop, shown):
    """A held back token's score waits with its text, and those of the stop string never come."""
    _, events = answer(script + "<|assistant_end|>", stop=stop, logprobs=0)
    text, scored = "", b""
    for event in events:
        text += event.text
        scored += TOKENIZER.decode_bytes([score.token for score in event.scores])
        assert scored == text.encode()
    assert text == shown
    assert all(score.logprob < 0 and score.top == () for e in events for score in e.scores)
