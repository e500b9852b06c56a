"""Questions about databases, read from conversations: those that say what their query is
(`sql/prompt.py`), and plain ones whose first turn holds the `CREATE TABLE` statements and whose
answer is the query.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from nanochat.sql.prompt import DIALECTS, SQLFacts, facts_of
from nanochat.tasks.rows import Rows, read_rows

PLAIN_DIALECT = "sqlite"  # of rows that do not say theirs
_CREATE = re.compile(r"^\s*create\s+table\b", re.IGNORECASE)


@dataclass(frozen=True, kw_only=True)
class SQLQuestion:
    """What is asked and what is known of the expected answer."""

    messages: Sequence[dict[str, Any]]
    question: str
    facts: SQLFacts


def question_of(row: dict[str, Any]) -> SQLQuestion:
    """The question of a row. ValueError with field, value and fix where it has none."""
    messages = row.get("messages")
    if not isinstance(messages, list) or len(messages) < 2:
        raise ValueError("messages: must be a list of at least a question and an answer")
    for message in messages:
        if not isinstance(message, dict) or not isinstance(message.get("content"), str):
            raise ValueError("messages: each must have a role and a content that is text")
    asked, answer = messages[-2]["content"], messages[-1]["content"]
    if messages[-1].get("role") != "assistant":
        raise ValueError("messages: the last one must be the assistant's, with the query")
    facts = facts_of(row)
    if facts is None:
        schema, _, question = asked.rpartition("\n\n")
        if not _CREATE.match(schema):
            raise ValueError(
                "messages: without a field `sql`, the question must come after CREATE TABLE "
                "statements and a blank line"
            )
        facts = SQLFacts(
            dialect=PLAIN_DIALECT,
            query=answer.strip(),
            schema=schema,
            tables=(),
            shape="",
            source=str(row.get("source", "")),
        )
        return SQLQuestion(messages=messages, question=question.strip(), facts=facts)
    if facts.dialect not in DIALECTS:
        raise ValueError(f"sql: dialect {facts.dialect!r} is none of {', '.join(DIALECTS)}")
    return SQLQuestion(messages=messages, question=asked.strip(), facts=facts)


def read_questions(path: Path | str) -> list[SQLQuestion]:
    """The questions of a file. ValueError with file and line for a row that is none."""
    rows: Rows = read_rows([Path(path)])
    found = []
    for index, row in enumerate(rows.each()):
        if isinstance(row, ValueError):
            raise row
        try:
            found.append(question_of(row))
        except ValueError as error:
            raise ValueError(f"{rows.place(index)}: {error}") from None
    return found
