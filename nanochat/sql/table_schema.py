"""Tables as a question needs them: names, types, what they mean, and the text a model reads."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

_PLAIN_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")
# Names that a parser takes for something else; quoted wherever they are written.
_RESERVED = frozenset(
    "all and as asc by case cast check column create cross current_date default desc distinct "
    "else end except exists from full group having if in index inner intersect interval into is "
    "join key left like limit natural not null offset on or order outer primary references right "
    "row rows select set table then to true false union unique user using values when where "
    "window with".split()
)


@dataclass(frozen=True, kw_only=True)
class SQLColumn:
    """A column. references: the `table.column` that its values come from, where that is known."""

    name: str
    type: str = ""
    description: str = ""
    references: str = ""


@dataclass(frozen=True, kw_only=True)
class SQLTable:
    """A table. name: as queries write it, with its database where they do. source: the file that
    defines it.
    """

    name: str
    columns: tuple[SQLColumn, ...] = ()
    description: str = ""
    source: str = ""

    @property
    def short_name(self) -> str:
        """The name without its database."""
        return self.name.rsplit(".", 1)[-1]

    def column(self, name: str) -> SQLColumn | None:
        """The column of that name, whatever its case; None if there is none."""
        return next((c for c in self.columns if c.name.casefold() == name.casefold()), None)


def schema_text(tables: Sequence[SQLTable], dialect: str = "") -> str:
    """`CREATE TABLE` statements, one a line, with descriptions as comments: what stands before a
    question, and what a parser reads back.
    """
    return "\n".join(_table_text(table, dialect) for table in tables)


def _table_text(table: SQLTable, dialect: str) -> str:
    columns = []
    for column in table.columns:
        words = [quoted(column.name, dialect), column.type]
        if column.references:
            owner, _, name = column.references.rpartition(".")
            words.append(f"REFERENCES {_dotted(owner, dialect)}({quoted(name, dialect)})")
        columns.append(" ".join(filter(None, words)))
    line = f"CREATE TABLE {_dotted(table.name, dialect)} ({', '.join(columns)});"
    notes = [_one_line(table.description)] if table.description else []
    notes += [f"{c.name}: {_one_line(c.description)}" for c in table.columns if c.description]
    return line + (f" -- {'; '.join(notes)}" if notes else "")


def _dotted(name: str, dialect: str) -> str:
    return ".".join(quoted(part, dialect) for part in name.split("."))


def quoted(name: str, dialect: str = "") -> str:
    """A name as the dialect writes it: in quotes only where it needs them."""
    if _PLAIN_NAME.fullmatch(name) and name.casefold() not in _RESERVED:
        return name
    if dialect in ("clickhouse", "bigquery", "mysql", "spark"):
        return "`" + name.replace("`", "\\`") + "`"
    return '"' + name.replace('"', '""') + '"'


def _one_line(text: str) -> str:
    return " ".join(text.split())
