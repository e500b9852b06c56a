"""A copy of everything in one compressed file, the same for SQLite and PostgreSQL, so that it also
moves a service from one to the other.

The first line says what the file is: {"nanochat_backup": 1, "revision": ..., "tables": {name:
[columns]}}. Then a line for each row, [name, value, ...], and at the end {"rows": how many}.
"""

from __future__ import annotations

import contextlib
import gzip
import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any, TextIO

from alembic.migration import MigrationContext
from sqlalchemy import Connection, MetaData, Table, text

FORMAT = 1
BATCH_ROWS = 500
BOOKKEEPING = "alembic_version"


def write_backup(connection: Connection, path: Path) -> int:
    """Copy all rows that the transaction sees into a new file -> how many. Only the owner can read
    the file. ValueError when it cannot be written.
    """
    tables = reflected(connection)
    head = {
        "nanochat_backup": FORMAT,
        "revision": MigrationContext.configure(connection).get_current_revision(),
        "tables": {table.name: [column.name for column in table.columns] for table in tables},
    }
    partial = path.with_name(path.name + ".partial")
    n_rows = 0
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        if path.exists():
            raise ValueError(f"{path}: is there already; name another file")
        handle = os.open(partial, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
        with os.fdopen(handle, "wb") as raw, gzip.open(raw, "wt", encoding="utf-8") as file:
            write_line(file, head)
            for table in tables:
                for row in connection.execute(table.select().order_by(*table.primary_key.columns)):
                    write_line(file, [table.name, *row])
                    n_rows += 1
            write_line(file, {"rows": n_rows})
        with open(partial, "rb") as whole:
            os.fsync(whole.fileno())
        os.replace(partial, path)
    except OSError as error:
        raise ValueError(f"{path}: cannot be written ({error.strerror})") from None
    finally:
        with contextlib.suppress(OSError):  # it is renamed, or was never there
            partial.unlink()
    return n_rows


def read_head(path: Path) -> dict[str, Any]:
    """The first line of a backup. ValueError for a file that is none."""
    with opened(path) as file:
        try:
            head = json.loads(file.readline())
        except ValueError:
            head = None
    if not isinstance(head, dict) or head.get("nanochat_backup") != FORMAT:
        raise ValueError(f"{path}: is not a backup that `nanochat db backup` has written")
    return head


def insert_backup(connection: Connection, path: Path) -> int:
    """Put all rows into empty tables of the backup's own revision -> how many. ValueError for a
    file that is cut off or does not fit.
    """
    head = read_head(path)
    tables = {table.name: table for table in reflected(connection)}
    if {name: {*columns} for name, columns in head["tables"].items()} != {
        name: {column.name for column in table.columns} for name, table in tables.items()
    }:
        raise ValueError(f"{path}: its tables are not those of schema {head['revision']}")
    n_rows = 0
    with opened(path) as file:
        file.readline()
        for name, rows in batches(file, path):
            columns = head["tables"].get(name, [])
            if not columns or any(len(row) != len(columns) for row in rows):
                raise ValueError(f"{path}: a row of {name} does not fit; use another backup")
            table = tables[name]
            connection.execute(
                table.insert(), [dict(zip(columns, row, strict=True)) for row in rows]
            )
            n_rows += len(rows)
    if connection.dialect.name == "postgresql":
        continue_counting(connection, list(tables.values()))
    return n_rows


def batches(file: TextIO, path: Path) -> Iterator[tuple[str, list[list[Any]]]]:
    """Rows of one table at a time, in the file's order. ValueError when the end is missing."""
    name, rows = "", []  # type: str, list[list[Any]]
    for n_rows, line in enumerate(file):
        try:
            value = json.loads(line)
        except ValueError:
            raise ValueError(f"{path}: line {n_rows + 2} is damaged; use another backup") from None
        if isinstance(value, dict):
            if value.get("rows") != n_rows:
                raise ValueError(f"{path}: holds {n_rows} rows, {value.get('rows')} were written")
            if rows:
                yield name, rows
            return
        if rows and (value[0] != name or len(rows) == BATCH_ROWS):
            yield name, rows
            rows = []
        name = value[0]
        rows.append(value[1:])
    raise ValueError(f"{path}: is cut off; use another backup")


@contextlib.contextmanager
def opened(path: Path) -> Iterator[TextIO]:
    try:
        with gzip.open(path, "rt", encoding="utf-8") as file:
            yield file
    except (OSError, EOFError, UnicodeDecodeError) as error:
        reason = getattr(error, "strerror", None) or str(error)
        raise ValueError(f"{path}: cannot be read ({reason})") from None


def reflected(connection: Connection) -> list[Table]:
    """The tables as they are in the database, what is referred to before what refers."""
    metadata = MetaData()
    metadata.reflect(connection, only=lambda name, _: name != BOOKKEEPING)
    return metadata.sorted_tables


def continue_counting(connection: Connection, tables: list[Table]) -> None:
    """Let PostgreSQL give new rows numbers after those that were put in."""
    for table in tables:
        if "id" in table.columns:
            highest = f"(SELECT max(id) FROM {table.name})"  # names of our own tables
            sequence = f"pg_get_serial_sequence('{table.name}', 'id')"
            connection.execute(
                text(f"SELECT setval({sequence}, coalesce({highest}, 1), {highest} IS NOT NULL)")
            )


def write_line(file: TextIO, value: Any) -> None:
    file.write(json.dumps(value, ensure_ascii=True, separators=(",", ":")) + "\n")
