"""GSM8K (arXiv 2110.14168): grade-school word problems whose worked answers call a calculator."""

from __future__ import annotations

import re
from decimal import Decimal, InvalidOperation
from typing import Any

from nanochat.tasks.base import Conversation, Task
from nanochat.tasks.rows import load_rows

_CALL = re.compile(r"<<([^<>]*)>>")
_FINAL = re.compile(r"####\s*\$?\s*(-?\$?[0-9][0-9,]*(?:\.[0-9]+)?|-?\$?\.[0-9]+)")


def answer_parts(answer: str) -> list[dict[str, str]]:
    """`a <<12*3=36>>36 b` -> text, python `12*3`, python_output `36`, text: what the calculator
    tool produces in chat.

    A call without `=` is kept as an expression with nothing known about its result: it stays text.
    """
    parts: list[dict[str, str]] = []
    place = 0
    for call in _CALL.finditer(answer):
        expression, equals, result = call.group(1).rpartition("=")
        if not equals:
            continue
        if call.start() > place:
            parts.append({"type": "text", "text": answer[place : call.start()]})
        parts.append({"type": "python", "text": expression})
        parts.append({"type": "python_output", "text": result})
        place = call.end()
    if place < len(answer) or not parts:
        parts.append({"type": "text", "text": answer[place:]})
    return parts


def final_number(text: str) -> Decimal | None:
    """The number after the first `####`, without thousands separators or dollar sign; None when
    there is none.
    """
    match = _FINAL.search(text)
    if not match:
        return None
    try:
        return Decimal(match.group(1).replace(",", "").replace("$", ""))
    except InvalidOperation:
        return None


def spoken(content: Any) -> str:
    """What an assistant message says, tool calls and their results left out."""
    return (
        content
        if isinstance(content, str)
        else "".join(p["text"] for p in content if p["type"] == "text")
    )


class GSM8K(Task):
    """`split`: train (7,473) or test (1,319). Right when the number after `####` is the answer's;
    72 equals 72.0.
    """

    name = "GSM8K"

    def __init__(self, split: str = "train") -> None:
        self.rows = load_rows("gsm8k", split)

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, index: int) -> Conversation:
        row = self.rows[self.index(index)]
        return {
            "messages": [
                {"role": "user", "content": row["question"]},
                {"role": "assistant", "content": answer_parts(row["answer"])},
            ]
        }

    def evaluate(self, conversation: Conversation, completion: str) -> bool:
        wanted = final_number(spoken(conversation["messages"][-1]["content"]))
        return wanted is not None and final_number(completion) == wanted
