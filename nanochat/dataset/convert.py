"""Turning the shapes in which conversations circulate into one: `{"messages": [{"role", "content"},
...]}`.
"""

from __future__ import annotations

import json
from typing import Any

from nanochat.tokenizer.chat_format import message_problem

Conversation = dict[str, Any]

# ShareGPT's names for who speaks.
_SPEAKERS = {
    "human": "user",
    "user": "user",
    "gpt": "assistant",
    "assistant": "assistant",
    "chatgpt": "assistant",
    "model": "assistant",
    "system": "system",
}
EXPECTED = (
    'expected [{"role": ..., "content": ...}, ...] or {"messages": [...]}, ShareGPT '
    '{"conversations": [...]} '
    'or Alpaca {"instruction": ..., "output": ...}'
)


def to_conversation(record: Any) -> tuple[Conversation, str]:
    """(conversation, form) of one parsed record; form is "list", "messages", "sharegpt" or
    "alpaca".

    The conversation is checked for training: roles alternate, it ends with the assistant, and the
    assistant says something. ValueError with the reason otherwise.
    """
    form, messages = _messages_of(record)
    if reason := message_problem(messages):
        raise ValueError(reason)
    if messages[-1]["role"] != "assistant":
        raise ValueError(
            "the last message is the user's; a conversation ends with the assistant's answer"
        )
    for number, message in enumerate(messages, 1):
        if message["role"] == "assistant" and not _says_something(message["content"]):
            raise ValueError(f"message {number}: the assistant's answer is empty")
    return {"messages": messages}, form


def looks_like_messages(items: list[Any]) -> bool:
    """Whether a JSON list is one conversation, as opposed to a list of records."""
    return bool(items) and isinstance(items[0], dict) and "role" in items[0]


def _messages_of(record: Any) -> tuple[str, list[Any]]:
    if isinstance(record, list):
        return "list", _plain(record)
    if not isinstance(record, dict):
        raise ValueError(f"a JSON {_json_name(record)}; {EXPECTED}")
    if "messages" in record:
        return "messages", _plain(record["messages"])
    if "conversations" in record:
        return "sharegpt", _from_sharegpt(record)
    if "instruction" in record:
        return "alpaca", _from_alpaca(record)
    keys = ", ".join(sorted(map(repr, record))[:5]) or "none"
    raise ValueError(f"unknown fields ({keys}); {EXPECTED}")


def _plain(messages: Any) -> Any:
    """Messages with only their role and content; a user's list of text parts becomes one string."""
    if not isinstance(messages, list):
        return messages
    result = []
    for message in messages:
        if isinstance(message, dict) and "role" in message and "content" in message:
            content = message["content"]
            if message["role"] != "assistant" and _all_text(content):
                content = "".join(part["text"] for part in content)
            message = {"role": message["role"], "content": _clean(content)}
        result.append(message)
    return result


def _from_sharegpt(record: dict[str, Any]) -> list[Any]:
    turns = record["conversations"]
    if not isinstance(turns, list):
        raise ValueError(f"conversations must be a list, not {_json_name(turns)}")
    messages: list[Any] = []
    if isinstance(record.get("system"), str) and record["system"]:
        messages.append({"role": "system", "content": record["system"]})
    for number, turn in enumerate(turns, 1):
        if isinstance(turn, dict) and "role" in turn and "content" in turn:
            messages.append(turn)
            continue
        if not isinstance(turn, dict) or "from" not in turn or "value" not in turn:
            raise ValueError(f'turn {number} must be an object with "from" and "value"')
        speaker = turn["from"]
        if not isinstance(speaker, str) or speaker not in _SPEAKERS:
            raise ValueError(f"turn {number} is from {speaker!r}, expected human, gpt or system")
        messages.append({"role": _SPEAKERS[speaker], "content": turn["value"]})
    return _plain(messages)


def _from_alpaca(record: dict[str, Any]) -> list[Any]:
    answer = next((record[name] for name in ("output", "response") if name in record), None)
    if answer is None:
        raise ValueError('an "instruction" without "output"')
    extra = next((record[name] for name in ("input", "context") if record.get(name)), "")
    if not isinstance(record["instruction"], str) or not isinstance(extra, str):
        raise ValueError('"instruction" and "input" must be strings')
    messages: list[Any] = []
    if isinstance(record.get("system"), str) and record["system"]:
        messages.append({"role": "system", "content": record["system"]})
    for pair in record.get("history") or []:
        if not isinstance(pair, list) or len(pair) != 2:
            raise ValueError('"history" must be a list of [question, answer] pairs')
        messages += [
            {"role": "user", "content": pair[0]},
            {"role": "assistant", "content": pair[1]},
        ]
    question = f"{record['instruction']}\n\n{extra}" if extra else record["instruction"]
    messages += [{"role": "user", "content": question}, {"role": "assistant", "content": answer}]
    return _plain(messages)


def _all_text(content: Any) -> bool:
    return (
        isinstance(content, list)
        and bool(content)
        and all(
            isinstance(p, dict) and p.get("type") == "text" and isinstance(p.get("text"), str)
            for p in content
        )
    )


def _clean(content: Any) -> Any:
    """Lone surrogates (legal in JSON, not in UTF-8) become "?"; parts keep only their type and
    text.
    """
    if isinstance(content, str):
        return content.encode("utf-8", "replace").decode()
    if isinstance(content, list):
        return [
            {"type": part["type"], "text": _clean(part["text"])}
            if isinstance(part, dict) and "type" in part and isinstance(part.get("text"), str)
            else part
            for part in content
        ]
    return content


def _says_something(content: str | list[dict[str, str]]) -> bool:
    if isinstance(content, str):
        return bool(content.strip())
    return any(part["text"].strip() for part in content if part["type"] != "python_output")


def _json_name(value: Any) -> str:
    if value is None or isinstance(value, bool):
        return json.dumps(value)
    return {"str": "string", "dict": "object", "list": "list"}.get(type(value).__name__, "number")
