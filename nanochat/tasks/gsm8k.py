"""GSM8K (arXiv 2110.14168): grade-school word problems whose worked answers call a calculator."""

from __future__ import annotations

import re
from decimal import Decimal
from typing import Any

from nanochat.tasks.base import Conversation
from nanochat.tasks.catalogue import TASKS
from nanochat.tasks.row_task import RowTask, shown, text_of
from nanochat.tasks.task_data import load_rows

_CALL = re.compile(r"<<([^<>]*)>>")
_FINAL = re.compile(
    r"""\#\#\#\# \s* \$? \s*
    (?P<number> -? \$? (?: [0-9]{1,3} (?:,[0-9]{3})+ | [0-9]+ ) (?:\.[0-9]+)? | -? \$? \.[0-9]+ )
    (?P<rest> [^\n]* )""",
    re.VERBOSE,
)
# How the line goes on where the number is a part of a longer one: 1e3, 5k, 1,23; 3/4, 3 1/2, 5 to
# 7, 2 * 10^3; 2 million.
_LONGER = re.compile(
    r"""[\w.,:'\u2019]* \w
    | \s* (?: [-+*/^x=,:;&~\u00d7\u00f7\u2013\u2014\u2044]{1,2} | (?:to|or|and|over|point)\b )?
      \s* [-$.]* [0-9\u00bc-\u00be\u2150-\u215e]
    | \s* (?:hundred|thousand|million|billion|trillion|dozen)s? \b""",
    re.VERBOSE | re.IGNORECASE,
)


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
    """The number after the first `####` that has one, without thousands separators or dollar sign.

    A number is read whole or not at all: None for 3/4, 1e3, 1,23 or 2 million.
    """
    match = _FINAL.search(text)
    if match is None or _LONGER.match(match["rest"]):
        return None
    return Decimal(match["number"].replace(",", "").replace("$", ""))


def spoken(content: Any) -> str:
    """What an assistant message says, tool calls and their results left out."""
    return (
        content
        if isinstance(content, str)
        else "".join(p["text"] for p in content if p["type"] == "text")
    )


class GSM8K(RowTask):
    """`split`: train (7,473) or test (1,319). Right when the number after `####` is the answer's;
    72 equals 72.0.
    """

    def __init__(self, split: str = "train") -> None:
        super().__init__(TASKS["GSM8K"], load_rows("gsm8k", split))

    def read(self, row: dict[str, Any]) -> Conversation:
        question, answer = text_of(row, "question"), text_of(row, "answer")
        parts = answer_parts(answer)
        if final_number(spoken(parts)) is None:
            raise ValueError(
                "answer: must end in `#### ` and a whole number or a decimal, got "
                f"{shown({'answer': answer[-40:]}, 'answer')}"
            )
        messages = [
            {"role": "user", "content": question},
            {"role": "assistant", "content": parts},
        ]
        return {"messages": messages}

    def evaluate(self, conversation: Conversation, completion: str) -> bool:
        wanted = final_number(spoken(conversation["messages"][-1]["content"]))
        return wanted is not None and final_number(completion) == wanted
