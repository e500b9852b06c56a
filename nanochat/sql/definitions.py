"""Table definitions: `CREATE TABLE` of any dialect, BigQuery's schema JSON, dbt's and Dataform's
YAML with descriptions."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterable, Iterator
from typing import Any

from nanochat.sql.dialect_parser import exp
from nanochat.sql.table_schema import SQLColumn, SQLTable

_MOST_DESCRIPTION_CHARS = 300


class Definitions:
    """Tables by their names. The same table from several files is one: what a later file adds is
    added. describe: what is done to every description.
    """

    def __init__(self, describe: Callable[[str], str] = lambda text: text) -> None:
        self._tables: dict[str, SQLTable] = {}
        self._describe = describe

    def add(self, table: SQLTable) -> None:
        columns = tuple(
            dataclasses.replace(c, description=self._describe(c.description)) for c in table.columns
        )
        about = self._describe(table.description)
        table = dataclasses.replace(table, columns=columns, description=about)
        known = self.find(table.name)
        if known is not None:
            table = _merged(known, table)
        self._tables[table.name.casefold()] = table

    def find(self, name: str) -> SQLTable | None:
        """The table of that name, or the only one whose last parts agree with it."""
        wanted = name.casefold()
        if wanted in self._tables:
            return self._tables[wanted]
        alike = [
            table
            for key, table in self._tables.items()
            if key.endswith("." + wanted) or wanted.endswith("." + key)
        ]
        return alike[0] if len(alike) == 1 else None

    def describe(self, name: str, column: str, text: str) -> None:
        """Add what a comment says about a table, or about its column."""
        table = self.find(name)
        if table is None:
            return
        text = self._describe(_short(text))
        if not column:
            self.add(dataclasses.replace(table, description=text))
            return
        columns = [
            dataclasses.replace(c, description=text)
            if c.name.casefold() == column.casefold()
            else c
            for c in table.columns
        ]
        self._tables[table.name.casefold()] = dataclasses.replace(table, columns=tuple(columns))

    def __iter__(self) -> Iterator[SQLTable]:
        return iter(self._tables.values())

    def __len__(self) -> int:
        return len(self._tables)


def _merged(old: SQLTable, new: SQLTable) -> SQLTable:
    columns = {column.name.casefold(): column for column in old.columns}
    for column in new.columns:
        before = columns.get(column.name.casefold(), column)
        columns[column.name.casefold()] = dataclasses.replace(
            before,
            type=before.type or column.type,
            description=column.description or before.description,
            references=column.references or before.references,
        )
    return dataclasses.replace(
        old, columns=tuple(columns.values()), description=new.description or old.description
    )


def from_statement(tree: Any, dialect: str, source: str) -> SQLTable | None:
    """The table of a parsed `CREATE TABLE`; None for other statements and for tables without
    columns.
    """
    if not isinstance(tree, exp.Create) or tree.kind not in ("TABLE", "VIEW"):
        return None
    schema = tree.this
    if not isinstance(schema, exp.Schema):
        return None
    keys = _foreign_keys(schema)
    columns = [
        _column(node, dialect, keys)
        for node in schema.expressions
        if isinstance(node, (exp.ColumnDef, exp.Identifier))
    ]
    if not columns:
        return None
    name = ".".join(part.name for part in schema.this.parts)
    about = _properties(tree.args.get("properties"))
    return SQLTable(name=name, columns=tuple(columns), description=about, source=source)


def _column(node: Any, dialect: str, keys: dict[str, str]) -> SQLColumn:
    if isinstance(node, exp.Identifier):
        return SQLColumn(name=node.name, references=keys.get(node.name.casefold(), ""))
    description, references = " ".join(node.comments or []), keys.get(node.name.casefold(), "")
    for constraint in node.args.get("constraints") or []:
        kind = constraint.args.get("kind")
        if isinstance(kind, exp.CommentColumnConstraint):
            description = kind.name
        elif isinstance(kind, exp.Properties):
            description = _properties(kind) or description
        elif isinstance(kind, exp.Reference):
            references = next(iter(_referenced(kind)), "")
    made = node.args.get("kind")
    return SQLColumn(
        name=node.name,
        type=_type(made, dialect) if made is not None else "",
        description=_short(description),
        references=references,
    )


def _type(node: Any, dialect: str) -> str:
    """A type as people write it: ClickHouse minds the case, BigQuery's are known in capitals,
    SQLite takes any.
    """
    text = node.sql(dialect=dialect if dialect not in ("", "sqlite") else None)
    return text if dialect in ("clickhouse", "bigquery") else text.lower()


def _foreign_keys(schema: Any) -> dict[str, str]:
    """Column -> `table.column` of the table's own FOREIGN KEY lines."""
    found: dict[str, str] = {}
    for key in schema.find_all(exp.ForeignKey):
        names = [part.name.casefold() for part in key.expressions]
        found.update(zip(names, _referenced(key.args.get("reference")), strict=False))
    return found


def _referenced(reference: Any) -> list[str]:
    if reference is None or not isinstance(reference.this, exp.Schema):
        return []
    table = ".".join(part.name for part in reference.this.this.parts)
    return [f"{table}.{part.name}" for part in reference.this.expressions]


def _properties(properties: Any) -> str:
    """What the options of a table or column say about it."""
    for node in properties.expressions if properties is not None else []:
        if isinstance(node, exp.SchemaCommentProperty):
            return _short(node.name)
        if isinstance(node, exp.Property) and node.name.casefold() == "description":
            return _short(node.text("value"))
    return ""


def comment_on(tree: Any) -> tuple[str, str, str] | None:
    """(table, column or "", text) of a parsed `COMMENT ON`; None for other statements."""
    if not isinstance(tree, exp.Comment) or not isinstance(
        tree.args.get("expression"), exp.Literal
    ):
        return None
    target, text = tree.this, tree.args["expression"].name
    if isinstance(target, exp.Column):
        parts = [part.name for part in target.parts]
        return ".".join(parts[:-1]), parts[-1], text
    if isinstance(target, exp.Table):
        return ".".join(part.name for part in target.parts), "", text
    return None


def from_document(document: Any, name: str, source: str) -> list[SQLTable]:
    """The tables of a parsed JSON or YAML document: BigQuery's list of fields or `bq show`, dbt's
    models, sources, seeds and snapshots. None of them: an empty list.
    """
    if isinstance(document, list) and document and all(map(_is_field, document)):
        return [_from_fields(name, document, "", source)]
    if not isinstance(document, dict):
        return []
    fields = document.get("schema", document)
    fields = fields.get("fields") if isinstance(fields, dict) else fields
    if isinstance(fields, list) and fields and all(map(_is_field, fields)):
        return [_from_fields(_bigquery_name(document, name), fields, _said(document), source)]
    found = [
        table
        for kind in ("models", "seeds", "snapshots")
        for table in _dbt_tables(document.get(kind), "", source)
    ]
    for group in _dicts(document.get("sources")):
        found += _dbt_tables(
            group.get("tables"), str(group.get("schema", group.get("name", ""))), source
        )
    return found


def _is_field(value: Any) -> bool:
    return isinstance(value, dict) and isinstance(value.get("name"), str) and "type" in value


def _bigquery_name(document: dict[str, Any], name: str) -> str:
    place = document.get("tableReference")
    if isinstance(place, dict) and place.get("tableId"):
        return ".".join(str(place[k]) for k in ("datasetId", "tableId") if place.get(k))
    return str(document.get("name") or name)


def _from_fields(name: str, fields: list[Any], about: str, source: str) -> SQLTable:
    columns = [
        SQLColumn(name=field["name"], type=_bigquery_type(field), description=_said(field))
        for field in fields
    ]
    return SQLTable(name=name, columns=tuple(columns), description=about, source=source)


def _bigquery_type(field: dict[str, Any]) -> str:
    kind = str(field["type"]).upper()
    if kind in ("RECORD", "STRUCT"):
        inner = [f for f in field.get("fields") or [] if _is_field(f)]
        parts = [f"{f['name']} {_bigquery_type(f)}" for f in inner]
        kind = f"STRUCT<{', '.join(parts)}>"
    kind = {"INTEGER": "INT64", "FLOAT": "FLOAT64", "BOOLEAN": "BOOL"}.get(kind, kind)
    return f"ARRAY<{kind}>" if str(field.get("mode", "")).upper() == "REPEATED" else kind


def _dbt_tables(models: Any, schema: str, source: str) -> Iterator[SQLTable]:
    for model in _dicts(models):
        if not isinstance(model.get("name"), str):
            continue
        columns = [
            SQLColumn(
                name=str(column["name"]),
                type=str(column.get("data_type") or ""),
                description=_said(column),
                references=_related(column),
            )
            for column in _dicts(model.get("columns"))
            if column.get("name")
        ]
        name = f"{schema}.{model['name']}" if schema else model["name"]
        yield SQLTable(name=name, columns=tuple(columns), description=_said(model), source=source)


def _related(column: dict[str, Any]) -> str:
    """`table.column` of dbt's test for relationships."""
    for test in _dicts(column.get("tests") or column.get("data_tests")):
        related = test.get("relationships")
        if isinstance(related, dict) and related.get("field"):
            related = related.get("arguments", related)
            table = str(related.get("to", "")).split("'")[1::2]
            if table:
                return f"{table[-1]}.{related['field']}"
    return ""


def _dicts(values: Any) -> Iterable[dict[str, Any]]:
    return [v for v in values if isinstance(v, dict)] if isinstance(values, list) else []


def _said(thing: dict[str, Any]) -> str:
    value = thing.get("description")
    return _short(value) if isinstance(value, str) else ""


def _short(text: str) -> str:
    text = " ".join(text.split())
    return (
        text
        if len(text) <= _MOST_DESCRIPTION_CHARS
        else text[: _MOST_DESCRIPTION_CHARS - 3] + "..."
    )
