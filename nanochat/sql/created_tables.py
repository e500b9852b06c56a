"""The tables of a schema text, read back from its `CREATE TABLE` statements, and what kind of value
each column holds."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Any

from nanochat.sql.dialect_parser import exp, parse_one, split_statements
from nanochat.sql.table_schema import SQLColumn, SQLTable

# Words of a type -> the kind of its values, the first that fits.
KINDS = (
    ("other", re.compile(r"array|map|struct|json|tuple|variant|<", re.IGNORECASE)),
    ("bool", re.compile(r"bool", re.IGNORECASE)),
    ("datetime", re.compile(r"datetime|timestamp", re.IGNORECASE)),
    ("date", re.compile(r"date", re.IGNORECASE)),
    ("text", re.compile(r"char|text|string|clob|uuid|enum|time|interval|blob|byte", re.IGNORECASE)),
    ("int", re.compile(r"int|serial|year", re.IGNORECASE)),
    ("real", re.compile(r"float|double|real|dec|numeric|number|money", re.IGNORECASE)),
)
_WRAPPED = re.compile(r"^(?:nullable|lowcardinality)\((.*)\)$", re.IGNORECASE)
_CREATE = re.compile(r"^\s*create\b", re.IGNORECASE)


@dataclass(frozen=True, kw_only=True)
class KeyedTable:
    """A table of a schema. keys: the columns that its rows differ in, in lower case; none where
    nothing says so. declared: whether the definition says it, or only the names do.
    """

    table: SQLTable
    keys: frozenset[str]
    declared: bool = False


def created_tables(schema: str, dialect: str) -> list[KeyedTable]:
    """The tables of a schema. ValueError for a statement that the dialect does not know."""
    found = []
    for _, statement in split_statements(schema):
        if not _CREATE.match(re.sub(r"--[^\n]*", "", statement)):
            continue
        tree = parse_one(statement, dialect)
        if isinstance(tree, exp.Create) and isinstance(tree.this, exp.Schema):
            found.append(_table(tree.this, dialect))
    return found


def _table(schema: Any, dialect: str) -> KeyedTable:
    columns, keys = [], set()
    for part in schema.expressions:
        if isinstance(part, exp.Identifier):
            columns.append(SQLColumn(name=part.name))
        elif isinstance(part, exp.ColumnDef):
            kind = part.args.get("kind")
            told = kind.sql(dialect=dialect or None) if kind is not None else ""
            columns.append(SQLColumn(name=part.name, type=told, references=_reference(part)))
            if part.find(exp.PrimaryKeyColumnConstraint) is not None:
                keys.add(part.name.casefold())
        elif isinstance(part, exp.PrimaryKey) and len(part.expressions) == 1:
            keys.add(part.expressions[0].name.casefold())
    name = ".".join(part.name for part in schema.this.parts)
    table = SQLTable(name=name, columns=tuple(columns))
    return KeyedTable(table=table, keys=frozenset(keys) or _likely_keys(table), declared=bool(keys))


def _reference(column: Any) -> str:
    """`table.column` that a column says its values come from."""
    reference = column.find(exp.Reference)
    if reference is None or not isinstance(reference.this, exp.Schema):
        return ""
    names = [part.name for part in reference.this.expressions]
    return f"{reference.this.this.name}.{names[0]}" if names else ""


def _likely_keys(table: SQLTable) -> frozenset[str]:
    """`id`, or `order_id` of the table orders: what nobody would have two rows with."""
    stem = re.sub(r"[^a-z0-9]", "", table.short_name.casefold())
    stems = {stem, stem.removesuffix("s"), stem.removesuffix("es"), stem.removesuffix("ies") + "y"}
    likely = {"id", *(f"{each}id" for each in stems)}
    named = [c.name.casefold() for c in table.columns]
    return frozenset(name for name in named if re.sub(r"[^a-z0-9]", "", name) in likely)


def kind_of(type_text: str) -> str:
    """int, real, text, date, datetime, bool, other; empty where the type is not told."""
    told = type_text.strip()
    while wrapped := _WRAPPED.match(told):
        told = wrapped.group(1)
    if not told:
        return ""
    return next((kind for kind, words in KINDS if words.search(told)), "text")
