"""A task whose rows come from files: all of them are read and checked when it is opened."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from typing import Any

from nanochat.runtime.errors import rank
from nanochat.tasks.base import Conversation, Task
from nanochat.tasks.catalogue import TaskEntry
from nanochat.tasks.content import Content, content_of
from nanochat.tasks.rows import Rows

SHOWN_PROBLEMS = 5
MANY_ROWS = 50_000  # some seconds' work, which is announced


class RowTask(Task):
    """Subclasses implement `read`.

    ValueError with file, line and reason for rows that do not fit: an answer of -1 would be scored
    as one, and a row that breaks a run should do so before its first step.
    """

    takes_lists = False  # whether a row may be something else than a JSON object

    def __init__(self, entry: TaskEntry, rows: Rows) -> None:
        super().__init__(entry)
        self.rows = rows
        if len(rows) >= MANY_ROWS and rank() == "0":
            print(f"{self.name}: checking {len(rows):,} rows", file=sys.stderr, flush=True)
        problems: list[str] = []
        self._content = content_of(self._good(problems))
        if problems:
            more = len(problems) - SHOWN_PROBLEMS
            told = problems[:SHOWN_PROBLEMS] + ([f"... and {more:,} more rows"] * (more > 0))
            raise ValueError("\n".join(told))

    def read(self, row: dict[str, Any]) -> Conversation:
        """The conversation of a row. ValueError with field, value and fix where it does not fit."""
        raise NotImplementedError

    def content(self) -> Content:
        return self._content

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, index: int) -> Conversation:
        return self.read(self.rows[self.index(index)])

    def _good(self, problems: list[str]) -> Iterator[Conversation]:
        """The rows that fit; what is wrong with the others goes to `problems`."""
        for index, row in enumerate(self.rows.each()):
            if isinstance(row, ValueError):
                problems.append(str(row))
                continue
            try:
                if not isinstance(row, dict) and not self.takes_lists:
                    raise ValueError(f"a JSON object is needed, not a {type(row).__name__}")
                yield self.read(row)
            except ValueError as error:
                problems.append(f"{self.rows.place(index)}: {error}")


def text_of(row: dict[str, Any], field: str, may_be_blank: bool = False) -> str:
    """A field that must hold text. ValueError otherwise."""
    value = row.get(field)
    if not isinstance(value, str) or not (may_be_blank or value.strip()):
        raise ValueError(f"{field}: must be text, got {shown(row, field)}")
    return value


def shown(row: dict[str, Any], field: str) -> str:
    """A field's value for a message, or that it is not there."""
    return f"{row[field]!r:.80}" if field in row else "nothing"
