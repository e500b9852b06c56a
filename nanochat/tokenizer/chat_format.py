"""The chat format: messages become token ids and the mask of what the model learns to say.

    <|bos|> ( <|user_start|> text <|user_end|> <|assistant_start|> parts <|assistant_end|> )*

The mask is 1 on what the assistant itself produces, its closing token included: text, and python
calls with both delimiters. It is 0 on everything else: the user's turns, the opening token (whoever
asks for an answer supplies it), tool output (the tool supplies it), and answers marked `"train":
false` or `"weight": 0`.

Training takes conversations of strictly alternating turns (`message_problem`); chat_prompt.py takes
messages in any order and makes them fit a context.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Protocol

from nanochat.tokenizer.special_tokens import (
    ASSISTANT_END,
    ASSISTANT_START,
    BOS,
    OUTPUT_END,
    OUTPUT_START,
    PYTHON_END,
    PYTHON_START,
    USER_END,
    USER_START,
)

PART_TYPES = ("text", "python", "python_output")

Part = tuple[str, str]  # type, text


class Encoder(Protocol):
    """What rendering needs of a tokenizer."""

    def encode(self, text: str) -> list[int]: ...

    def encode_special(self, token: str) -> int: ...


@dataclass(frozen=True, kw_only=True)
class Turn:
    """What the user says and what the assistant answers; `answer` None while it is awaited."""

    user: str
    answer: list[Part] | None = None
    trained: bool = True


def message_problem(messages: Any) -> str | None:
    """Why `messages` are no conversation to train on, in a few words for people; None when they
    are.
    """
    if reason := shape_problem(messages):
        return reason
    roles = [message["role"] for message in messages]
    offset = 1 if roles[0] == "system" else 0
    if len(roles) == offset:
        return "a system message alone is no conversation; a user message must follow"
    for number, role in enumerate(roles[offset:], offset + 1):
        expected = ("user", "assistant")[(number - offset - 1) % 2]
        if role != expected:
            return (
                f"message {number} has role {role!r}, expected {expected!r} (roles alternate "
                "user, assistant)"
            )
    for number, message in enumerate(messages, 1):
        if reason := content_problem(message["role"], message["content"]):
            return f"message {number}: {reason}"
    return None


def shape_problem(messages: Any) -> str | None:
    """Why `messages` is no list of messages, whatever they say; None when it is."""
    if not isinstance(messages, list):
        return f"messages must be a list, not {type(messages).__name__}"
    if not messages:
        return "the conversation has no messages"
    for number, message in enumerate(messages, 1):
        if not isinstance(message, dict) or "role" not in message or "content" not in message:
            return f'message {number} must be an object with "role" and "content"'
    return None


def content_problem(role: str, content: Any) -> str | None:
    """Why a message of this role cannot have this content; None when it can."""
    if isinstance(content, str):
        return None
    if not isinstance(content, list):
        return f"content must be a string, not {type(content).__name__}"
    if role != "assistant":
        return f"content of a {role} message must be a string"
    for number, part in enumerate(content, 1):
        if not isinstance(part, dict) or not isinstance(part.get("text"), str):
            return f'part {number} must be an object with "type" and a string "text"'
        if part.get("type") not in PART_TYPES:
            return (
                f"part {number} has type {part.get('type')!r}, expected one of "
                f"{', '.join(PART_TYPES)}"
            )
    return None


def training_turns(conversation: dict[str, Any]) -> list[Turn]:
    """The turns of a conversation, a leading system message folded into the first. ValueError for
    a malformed one.
    """
    messages = conversation.get("messages") if isinstance(conversation, dict) else None
    if reason := message_problem(messages):
        raise ValueError(f"conversation cannot be rendered: {reason}")
    assert messages is not None
    system, first = "", 0
    if messages[0]["role"] == "system":
        system, first = f"{messages[0]['content']}\n\n", 1
    turns = []
    for at in range(first, len(messages), 2):
        answer = messages[at + 1] if at + 1 < len(messages) else None
        turns.append(
            Turn(
                user=(system if at == first else "") + messages[at]["content"],
                answer=None if answer is None else parts_of(answer["content"]),
                trained=answer is not None and is_trained(answer),
            )
        )
    return turns


def parts_of(content: str | list[dict[str, str]]) -> list[Part]:
    if isinstance(content, str):
        return [("text", content)]
    return [(part["type"], part["text"]) for part in content]


def is_trained(message: dict[str, Any]) -> bool:
    """Whether the model is to learn to say this: not when marked `"train": false` or `"weight":
    0`.
    """
    return message.get("train") is not False and message.get("weight") != 0


def render_conversation(
    tokenizer: Encoder, conversation: dict[str, Any], max_tokens: int | None = None
) -> tuple[list[int], list[int]]:
    """(ids, mask), equally long, at most `max_tokens` (the end is cut off). ValueError for a
    malformed conversation.
    """
    ids = [tokenizer.encode_special(BOS)]
    mask = [0]
    for turn in training_turns(conversation):
        for new, trained in turn_pieces(tokenizer, turn):
            ids += new
            mask += [trained] * len(new)
    return ids[:max_tokens], mask[:max_tokens]


def render_for_completion(tokenizer: Encoder, conversation: dict[str, Any]) -> list[int]:
    """Ids ending in <|assistant_start|>: what a model is given to write the next (or last)
    assistant message.
    """
    messages = conversation["messages"]
    if messages and messages[-1].get("role") == "assistant":
        messages = messages[:-1]
    ids, _ = render_conversation(tokenizer, {"messages": messages})
    return [*ids, tokenizer.encode_special(ASSISTANT_START)]


def user_ids(tokenizer: Encoder, text: str) -> list[int]:
    """A user's message with its delimiters. Whatever `text` spells, it is never encoded as a
    special token.
    """
    special = tokenizer.encode_special
    return [special(USER_START), *tokenizer.encode(text), special(USER_END)]


def turn_pieces(tokenizer: Encoder, turn: Turn, closed: bool = True) -> list[tuple[list[int], int]]:
    """(ids, mask of all of them) of a turn, piece by piece. `closed`: the answer is over."""
    special = tokenizer.encode_special
    pieces = [(user_ids(tokenizer, turn.user), 0)]
    if turn.answer is None:
        return pieces
    learnt = int(turn.trained)
    pieces.append(([special(ASSISTANT_START)], 0))
    for kind, text in turn.answer:
        ids = tokenizer.encode(text)
        if kind == "text":
            pieces.append((ids, learnt))
        elif kind == "python":
            pieces.append(([special(PYTHON_START), *ids, special(PYTHON_END)], learnt))
        else:
            pieces.append(([special(OUTPUT_START), *ids, special(OUTPUT_END)], 0))
    if closed:
        pieces.append(([special(ASSISTANT_END)], learnt))
    return pieces


def visualize(tokenizer: Any, ids: list[int], mask: list[int]) -> str:
    """rich markup of the tokens: green is trained on, red is not."""
    from rich.markup import escape

    pieces: list[str] = []
    start = 0
    for stop in range(1, len(ids) + 1):
        if stop == len(ids) or mask[stop] != mask[start]:
            colour = "green" if mask[start] else "red"
            pieces.append(f"[{colour}]{escape(tokenizer.decode(ids[start:stop]))}[/{colour}]")
            start = stop
    return "".join(pieces)
