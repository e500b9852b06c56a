"""The chat format: a conversation becomes token ids and the mask of what the model learns to say.

    <|bos|> ( <|user_start|> text <|user_end|> <|assistant_start|> parts <|assistant_end|> )*

The mask is 1 on what the assistant itself produces, its closing token included: text, and python
calls with both delimiters. It is 0 on everything else: the user's turns, the opening token (whoever
asks for an answer supplies it) and tool output (the tool supplies it).
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from nanochat.tokenizer.special import (
    ASSISTANT_END,
    ASSISTANT_START,
    OUTPUT_END,
    OUTPUT_START,
    PYTHON_END,
    PYTHON_START,
    USER_END,
    USER_START,
)

if TYPE_CHECKING:
    from nanochat.tokenizer.bpe import Tokenizer

PART_TYPES = ("text", "python", "python_output")


def message_problem(messages: Any) -> str | None:
    """Why `messages` cannot be rendered, in a few words for people; None when they can."""
    if not isinstance(messages, list):
        return f"messages must be a list, not {type(messages).__name__}"
    if not messages:
        return "the conversation has no messages"
    for number, message in enumerate(messages, 1):
        if not isinstance(message, dict) or "role" not in message or "content" not in message:
            return f'message {number} must be an object with "role" and "content"'
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
        if reason := _content_problem(message["role"], message["content"]):
            return f"message {number}: {reason}"
    return None


def _content_problem(role: str, content: Any) -> str | None:
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


def render_conversation(
    tokenizer: Tokenizer, conversation: dict[str, Any], max_tokens: int | None = None
) -> tuple[list[int], list[int]]:
    """(ids, mask), equally long, at most `max_tokens` (the end is cut off). ValueError for a
    malformed conversation.
    """
    ids: list[int] = [tokenizer.get_bos_token_id()]
    mask: list[int] = [0]

    def add(new: list[int], trained: int) -> None:
        ids.extend(new)
        mask.extend([trained] * len(new))

    special = tokenizer.encode_special
    for message in _foldable(conversation):
        content = message["content"]
        if message["role"] == "user":
            add([special(USER_START), *tokenizer.encode(content), special(USER_END)], 0)
            continue
        add([special(ASSISTANT_START)], 0)
        for part in [{"type": "text", "text": content}] if isinstance(content, str) else content:
            text = tokenizer.encode(part["text"])
            if part["type"] == "text":
                add(text, 1)
            elif part["type"] == "python":
                add([special(PYTHON_START), *text, special(PYTHON_END)], 1)
            else:
                add([special(OUTPUT_START), *text, special(OUTPUT_END)], 0)
        add([special(ASSISTANT_END)], 1)
    return ids[:max_tokens], mask[:max_tokens]


def render_for_completion(tokenizer: Tokenizer, conversation: dict[str, Any]) -> list[int]:
    """Ids ending in <|assistant_start|>: what a model is given to write the next (or last)
    assistant message.
    """
    messages = conversation["messages"]
    if messages and messages[-1].get("role") == "assistant":
        messages = messages[:-1]
    ids, _ = render_conversation(tokenizer, {"messages": messages})
    return [*ids, tokenizer.encode_special(ASSISTANT_START)]


def _foldable(conversation: dict[str, Any]) -> list[dict[str, Any]]:
    """The messages, checked, with a leading system message folded into the first user turn."""
    messages = conversation.get("messages") if isinstance(conversation, dict) else None
    if reason := message_problem(messages):
        raise ValueError(f"conversation cannot be rendered: {reason}")
    assert messages is not None
    if messages[0]["role"] == "system":
        first = {"role": "user", "content": f"{messages[0]['content']}\n\n{messages[1]['content']}"}
        return [first, *messages[2:]]
    return messages


def visualize(tokenizer: Tokenizer, ids: list[int], mask: list[int]) -> str:
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
