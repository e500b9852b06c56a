"""Turning the shapes in which conversations circulate into one: `{"messages": [{"role", "content"},
...]}`, an answer that is not to be learnt with `"train": false`.

Nothing that means something is dropped in silence: marks of what to train on are honoured, fields
that cannot be trained on refuse the row, and every other field is named to whoever asked.
"""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from typing import Any

from nanochat.tokenizer.chat_format import is_trained, message_problem

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
# Marks of what to train on: true or 1, false or 0.
ROW_MARKS = ("train", "weight")
MARKS = (*ROW_MARKS, "loss")
# Other spellings of such marks, some of which mean the opposite: better asked than guessed.
UNCLEAR = "mask masked loss_mask ignore trainable training train_detail train_on_turn".split()
# What an answer consists of besides its text, or is about.
UNUSABLE = (
    "tool_calls function_call tool_call_id image images image_url audio audios video videos"
).split()
# What a row may say about itself: where it is from, and which query it is about.
_ABOUT = {"sql": dict, "source": str}
_NOTHING: tuple[Any, ...] = (None, "", [], {})


@dataclass(kw_only=True)
class Converted:
    """A conversation, the form it had ("list", "messages", "sharegpt" or "alpaca"), and the fields
    of it that are not used, one for each time. sql: what the row says about its query
    (`sql/prompt.py`), for those that examine it.
    """

    conversation: Conversation
    form: str
    sql: dict[str, Any] | None = None
    unused: list[str] = field(default_factory=list)

    @property
    def is_trained(self) -> bool:
        """Whether any answer is to be learnt."""
        messages = self.conversation["messages"]
        return any(m["role"] == "assistant" and is_trained(m) for m in messages)


def to_conversation(record: Any) -> Converted:
    """One parsed record as a conversation.

    It is checked for training: roles alternate, it ends with the assistant, and the assistant says
    something. ValueError with the reason otherwise.
    """
    unused: list[str] = []
    if isinstance(record, list):
        form, messages = "list", record
    else:
        form, messages = _messages_of(record, unused)
    messages = _plain(messages, unused)
    if reason := message_problem(messages):
        raise ValueError(reason)
    if messages[-1]["role"] != "assistant":
        raise ValueError(
            "the last message is the user's; a conversation ends with the assistant's answer"
        )
    for number, message in enumerate(messages, 1):
        if message["role"] == "assistant" and not _says_something(message["content"]):
            raise ValueError(f"message {number}: the assistant's answer is empty")
    sql = record.get("sql") if isinstance(record, dict) else None
    return Converted(
        conversation={"messages": messages},
        form=form,
        sql=sql if isinstance(sql, dict) else None,
        unused=unused,
    )


def looks_like_messages(items: list[Any]) -> bool:
    """Whether a JSON list is one conversation, as opposed to a list of records."""
    return bool(items) and isinstance(items[0], dict) and "role" in items[0]


def _messages_of(record: Any, unused: list[str]) -> tuple[str, Any]:
    """(form, messages as they are written) of an object."""
    if not isinstance(record, dict):
        raise ValueError(f"a JSON {_json_name(record)}; {EXPECTED}")
    if "messages" in record:
        form, used, messages = "messages", {"messages"}, record["messages"]
    elif "conversations" in record:
        form, used, messages = "sharegpt", {"conversations"}, _from_sharegpt(record)
    elif "instruction" in record:
        form = "alpaca"
        used, messages = _from_alpaca(record)
    else:
        keys = ", ".join(sorted(map(repr, record))[:5]) or "none"
        raise ValueError(f"unknown fields ({keys}); {EXPECTED}")
    if not isinstance(messages, list):
        return form, messages
    system = record.get("system")
    if isinstance(system, str) and system and not _starts_with_system(messages):
        messages = [{"role": "system", "content": system}, *messages]
        used.add("system")
    used |= {name for name, kind in _ABOUT.items() if isinstance(record.get(name), kind)}
    _refuse(record, UNUSABLE, "")
    unused += [f'field "{name}"' for name in _left(record, {*used, *ROW_MARKS})]
    if _mark(record, ROW_MARKS, "") is False:
        messages = [{**m, "train": False} if isinstance(m, dict) else m for m in messages]
    return form, messages


def _starts_with_system(messages: list[Any]) -> bool:
    return bool(messages) and isinstance(messages[0], dict) and messages[0].get("role") == "system"


def _plain(messages: Any, unused: list[str]) -> Any:
    """Messages with their role, content and mark; a user's list of parts becomes one string."""
    if not isinstance(messages, list):
        return messages
    result = []
    for number, message in enumerate(messages, 1):
        if isinstance(message, dict):
            _refuse(message, [*UNUSABLE, *UNCLEAR], f"message {number}: ")
        if isinstance(message, dict) and "role" in message and "content" in message:
            message = _plain_message(message, number, unused)
        result.append(message)
    return result


def _plain_message(message: dict[str, Any], number: int, unused: list[str]) -> dict[str, Any]:
    role, content = message["role"], message["content"]
    unused += [f'message field "{name}"' for name in _left(message, {"role", "content", *MARKS})]
    if isinstance(content, list):
        parts = [part for part in content if isinstance(part, dict)]
        unused += [f'part field "{n}"' for part in parts for n in _left(part, {"type", "text"})]
    if role != "assistant" and _all_text(content):
        content = "".join(part["text"] for part in content)
    plain = {"role": role, "content": _clean(content)}
    mark = _mark(message, MARKS, f"message {number}: ")
    if role == "assistant":
        return plain | ({"train": False} if mark is False else {})
    if mark:
        unused.append(f"mark to train on what the {role} says")
    return plain


def _left(owner: dict[str, Any], used: set[str]) -> list[str]:
    """Fields that say something and are not among the used ones."""
    return [name for name, value in owner.items() if name not in used and value not in _NOTHING]


def _refuse(owner: dict[str, Any], names: list[str], where: str) -> None:
    """Raise ValueError for a field that says what can neither be trained on nor be left out."""
    for name in names:
        if owner.get(name) in _NOTHING:
            continue
        if name in UNCLEAR:
            fix = 'is not understood; mark what not to train on with "train": false'
        else:
            fix = "cannot be trained on; leave the row out, or say it in the text"
        raise ValueError(f'{where}"{name}" {fix}')


def _mark(owner: dict[str, Any], names: tuple[str, ...], where: str) -> bool | None:
    """Whether a mark says to train on this; None without one."""
    marks = {name: owner[name] for name in names if owner.get(name) is not None}
    for name, value in marks.items():
        if not isinstance(value, (bool, int, float)) or value not in (0, 1):
            raise ValueError(f'{where}"{name}" is {json.dumps(value)}; use true (1) or false (0)')
    return all(marks.values()) if marks else None


def _from_sharegpt(record: dict[str, Any]) -> list[Any]:
    turns = record["conversations"]
    if not isinstance(turns, list):
        raise ValueError(f"conversations must be a list, not {_json_name(turns)}")
    messages: list[Any] = []
    for number, turn in enumerate(turns, 1):
        if isinstance(turn, dict) and "role" in turn and "content" in turn:
            messages.append(turn)
            continue
        if not isinstance(turn, dict) or "from" not in turn or "value" not in turn:
            raise ValueError(f'turn {number} must be an object with "from" and "value"')
        speaker = turn["from"]
        if not isinstance(speaker, str) or speaker not in _SPEAKERS:
            raise ValueError(f"turn {number} is from {speaker!r}, expected human, gpt or system")
        rest = {name: value for name, value in turn.items() if name not in ("from", "value")}
        messages.append({**rest, "role": _SPEAKERS[speaker], "content": turn["value"]})
    return messages


def _from_alpaca(record: dict[str, Any]) -> tuple[set[str], list[Any]]:
    """(fields used, messages)"""
    answer = next((name for name in ("output", "response") if name in record), None)
    if answer is None:
        raise ValueError('an "instruction" without "output"')
    extra = next((name for name in ("input", "context") if record.get(name)), "input")
    question, more = record["instruction"], record.get(extra, "")
    if not isinstance(question, str) or not isinstance(more, str):
        raise ValueError('"instruction" and "input" must be strings')
    messages: list[Any] = []
    for pair in record.get("history") or []:
        if not isinstance(pair, list) or len(pair) != 2:
            raise ValueError('"history" must be a list of [question, answer] pairs')
        messages += [
            {"role": "user", "content": pair[0]},
            {"role": "assistant", "content": pair[1]},
        ]
    messages += [
        {"role": "user", "content": f"{question}\n\n{more}" if more else question},
        {"role": "assistant", "content": record[answer]},
    ]
    return {"instruction", "history", answer, extra}, messages


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
