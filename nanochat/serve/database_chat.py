"""Asking a database in the terminal: its tables before the question, a gate behind the answer, and
the proposed query run when the person says so, never by itself."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Sequence
from io import StringIO
from typing import Any

from nanochat.runtime.printable import printable

RUN = "r"  # the key that runs the proposed query
SHOWN_ROWS, MOST_ROWS, TIMEOUT_S = 20, 10_000, 10.0


class DatabaseChat:
    """A database to be asked, and what a folder knows about it. `fits`: whether a text has room in
    the context before an answer. ValueError where either cannot be opened.
    """

    def __init__(
        self, database: str | None, knowledge: str | None, fits: Callable[[str], bool]
    ) -> None:
        from nanochat.sql.created_tables import created_tables
        from nanochat.sql.databases import open_database
        from nanochat.sql.knowledge import KnowledgeIndex

        self.index = KnowledgeIndex(knowledge) if knowledge else None
        self.database = open_database(database) if database else None
        self.fits = fits
        self.proposed = ""
        self.dialect = self.database.dialect if self.database else ""
        self.schema = self.database.schema() if self.database else ""
        tables = created_tables(self.schema, self.dialect) if self.schema else []
        self.columns = frozenset(c.name.casefold() for t in tables for c in t.table.columns)

    def prompt(self, question: str) -> str:
        """The question as the model reads it: as in training rows, with as much of the tables and
        of what is known as fits.
        """
        from nanochat.sql.prompt import system_text

        def put(schema: str, knowledge: Sequence[str]) -> str:
            if not self.dialect:
                return "\n".join([*knowledge, "", question]) if knowledge else question
            return f"{system_text(schema, self.dialect, knowledge)}\n\n{question}"

        schema = self._fitting_schema(question, put)
        if self.index is None:
            return put(schema, ())
        known = self.index.chosen(question, lambda texts: self.fits(put(schema, texts)))
        return put(schema, known)

    def _fitting_schema(self, question: str, put: Callable[[str, Sequence[str]], str]) -> str:
        """The tables whose names and columns the question speaks of first, as many as fit."""
        if not self.schema or self.fits(put(self.schema, ())):
            return self.schema
        words = {word.rstrip("s") for word in question.casefold().split()}
        lines = self.schema.split("\n")
        by_fit = sorted(lines, key=lambda line: -sum(w in line.casefold() for w in words))
        kept: list[str] = []
        for line in by_fit:
            if self.fits(put("\n".join([*kept, line]), ())):
                kept.append(line)
        return "\n".join(line for line in lines if line in kept)

    def run(self) -> str:
        """The first rows of the proposed query as a table, or how else it ended."""
        assert self.database is not None
        if not self.proposed:
            return "(there is no query to run yet)"
        result = self.database.run(self.proposed, MOST_ROWS, TIMEOUT_S)
        if not result.ok and not result.rows:
            return f"({result.end}: {printable(result.told)})"
        many = f"more than {MOST_ROWS:,}" if not result.ok else f"{len(result.rows):,}"
        counted = f"({many} row{'s' * (many != '1')}"
        counted += f", the first {SHOWN_ROWS} shown)" if len(result.rows) > SHOWN_ROWS else ")"
        return f"{table_text(result.columns, result.rows[:SHOWN_ROWS])}\n{counted}"


def table_text(columns: Sequence[str], rows: Sequence[Sequence[Any]]) -> str:
    """A result as a table for the terminal."""
    from rich import box
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    table = Table(box=box.SIMPLE_HEAD, pad_edge=False)
    for name in columns:
        table.add_column(Text(printable(name)), overflow="fold")
    for row in rows:
        shown = ["NULL" if value is None else printable(str(value)) for value in row]
        table.add_row(*map(Text, shown))
    file = StringIO()
    Console(file=file, width=shutil.get_terminal_size((100, 24)).columns).print(table)
    return "\n".join(line.rstrip() for line in file.getvalue().strip("\n").split("\n"))
