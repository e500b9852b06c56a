"""Databases that queries are run on: fillings in SQLite or DuckDB, files of either, ClickHouse in
this process (chdb), PostgreSQL by its URL. All are only read, within limits.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Protocol
from urllib.parse import unquote, urlsplit

from nanochat.runtime.base_dir import expanded
from nanochat.sql.created_tables import KeyedTable
from nanochat.sql.dialect_parser import exp
from nanochat.sql.fillings import Filling
from nanochat.sql.query_run import DuckDatabase, SQLiteDatabase
from nanochat.sql.table_schema import quoted

MAX_ROWS = 10_000
TIMEOUT_S = 5.0
# Kind of value -> the type of a filling's column.
TYPES = {
    "sqlite": {"int": "INTEGER", "real": "NUMERIC", "bool": "INTEGER", "": "TEXT"},
    "duckdb": {
        "int": "BIGINT",
        "real": "DOUBLE",
        "bool": "BOOLEAN",
        "date": "DATE",
        "datetime": "TIMESTAMP",
        "": "VARCHAR",
    },
}
# What only narrows, speeds up or samples, and means nothing for a handful of rows.
CLICKHOUSE_ONLY = ("final", "settings", "sample", "format")


@dataclass(frozen=True, kw_only=True)
class QueryResult:
    """How a query ended. end: rows, error, refused, timeout, too many rows, memory; told: the
    reason.
    """

    end: str
    told: str = ""
    columns: tuple[str, ...] = ()
    rows: list[list[Any]] = field(default_factory=list)

    @property
    def ok(self) -> bool:
        return self.end == "rows"


class ReadDatabase(Protocol):
    """Runs one query at a time. `dialect`: as sqlglot names it."""

    dialect: str

    def run(
        self, query: str, max_rows: int = MAX_ROWS, timeout_s: float = TIMEOUT_S
    ) -> QueryResult:
        """A query's rows, or how else it ended."""

    def schema(self) -> str:
        """Its tables as `CREATE TABLE` statements."""

    def close(self) -> None: ...


def result_of(told: dict[str, Any]) -> QueryResult:
    """What `query_run` tells, as a record."""
    return QueryResult(
        end=told["end"], told=told["told"], columns=tuple(told["columns"]), rows=told["rows"]
    )


# --- fillings


def engine_for(dialect: str) -> str:
    """Which of the built-in engines stands in for a dialect. ValueError where it is not
    installed."""
    if dialect == "sqlite":
        return "sqlite"
    if find_spec("duckdb") is None:
        raise ValueError(
            f"{dialect or 'SQL'} is run by duckdb, which is not installed; "
            "`pip install 'nanochat[sql]'` adds it"
        )
    return "duckdb"


def filling_job(filling: Filling, engine: str) -> dict[str, Any]:
    """The statements that make a filling: `create`, and `rows` as (INSERT, values)."""
    create, rows = [], []
    types = TYPES[engine]
    for table in filling.tables:
        name = quoted(table.table.short_name, engine)
        columns = [
            f"{quoted(column.name, engine)} "
            + types.get(filling.kinds[_key(table, column.name)], types[""])
            for column in table.table.columns
        ]
        create.append(f"CREATE TABLE {name} ({', '.join(columns)})")
        places = ", ".join("?" * len(columns))
        rows.append((f"INSERT INTO {name} VALUES ({places})", filling.rows[table.table.name]))
    return {"create": create, "rows": rows}


def _key(table: KeyedTable, column: str) -> tuple[str, str]:
    return table.table.name.casefold(), column.casefold()


def for_engine(text: str, tree: Any, dialect: str, engine: str) -> str:
    """A query as the engine runs it: its own text where that is the engine's language. ValueError
    where the engine has nothing like it.
    """
    has_database = any(table.args.get("db") for table in tree.find_all(exp.Table))
    if dialect == engine and not has_database:
        return text
    tree = tree.copy()
    for table in tree.find_all(exp.Table):
        table.set("db", None)
        table.set("catalog", None)
    for column in tree.find_all(exp.Column):
        column.set("db", None)
        column.set("catalog", None)
    if dialect == "clickhouse":
        tree = _without_clickhouse_only(tree)
    from sqlglot.errors import ErrorLevel, SqlglotError

    try:
        return str(tree.sql(dialect=engine, comments=False, unsupported_level=ErrorLevel.RAISE))
    except (SqlglotError, ValueError, RecursionError) as error:
        raise ValueError(f"{engine} cannot stand in for {dialect} here: {error}") from None


def _without_clickhouse_only(tree: Any) -> Any:
    for node in list(tree.walk()):
        if isinstance(node, exp.Final):
            node.replace(node.this)
        elif isinstance(node, (exp.TableSample,)):
            node.pop()
        elif isinstance(node, exp.PreWhere):
            select: Any = node.parent
            select.set("prewhere", None)
            select.where(node.this, copy=False)
    for name in CLICKHOUSE_ONLY:
        for select in tree.find_all(exp.Query):
            select.set(name, None)
    return tree


def open_filling(filling: Filling, engine: str) -> SQLiteDatabase | DuckDatabase:
    """A filling as a database of this process."""
    made = filling_job(filling, engine)
    kind = SQLiteDatabase if engine == "sqlite" else DuckDatabase
    return kind(made["create"], made["rows"])


# --- databases of people


class FileDatabase:
    """An SQLite or DuckDB file."""

    def __init__(self, engine: str, path: Path) -> None:
        if not path.is_file():
            raise ValueError(f"{path}: there is no such database file")
        self.dialect = engine
        kind = SQLiteDatabase if engine == "sqlite" else DuckDatabase
        try:
            self._database = kind(path=str(path))
            found = self._database.run(SCHEMA_QUERIES[engine], MAX_ROWS, TIMEOUT_S)
        except Exception as error:  # each engine has errors of its own
            raise ValueError(f"{path}: cannot be opened as {engine}: {error}") from None
        if found["end"] != "rows":
            raise ValueError(f"{path}: cannot be read as {engine}: {found['told']}")
        self._schema = "\n".join(f"{row[0].rstrip(';')};" for row in found["rows"])

    def run(
        self, query: str, max_rows: int = MAX_ROWS, timeout_s: float = TIMEOUT_S
    ) -> QueryResult:
        return result_of(self._database.run(query, max_rows, timeout_s))

    def schema(self) -> str:
        return self._schema

    def close(self) -> None:
        self._database.close()


SCHEMA_QUERIES = {
    "sqlite": "SELECT sql FROM sqlite_master WHERE type IN ('table', 'view') AND sql IS NOT NULL "
    "AND name NOT LIKE 'sqlite_%' ORDER BY name",
    "duckdb": "SELECT sql FROM duckdb_tables() WHERE NOT internal ORDER BY table_name",
}


class PostgresDatabase:
    """A PostgreSQL server, in transactions that can only read."""

    dialect = "postgres"

    def __init__(self, url: str) -> None:
        try:
            import psycopg
        except ModuleNotFoundError:
            raise ValueError(
                "PostgreSQL is read by psycopg, which is not installed; "
                "`pip install 'nanochat[postgres]'` adds it"
            ) from None
        self._psycopg = psycopg
        try:
            self._connection = psycopg.connect(url, connect_timeout=10)
        except psycopg.Error as error:
            raise ValueError(f"PostgreSQL at {without_password(url)}: {error}") from None
        self._connection.read_only = True

    def run(
        self, query: str, max_rows: int = MAX_ROWS, timeout_s: float = TIMEOUT_S
    ) -> QueryResult:
        from nanochat.sql.query_run import taken

        errors = self._psycopg.errors
        try:
            with self._connection.transaction(force_rollback=True):
                self._connection.execute(f"SET LOCAL statement_timeout = {int(timeout_s * 1000)}")
                with self._connection.cursor(name="rows") as cursor:
                    cursor.itersize = 1000
                    cursor.execute(query)
                    return result_of(taken(cursor, max_rows))
        except errors.QueryCanceled:
            return QueryResult(end="timeout", told=f"longer than {timeout_s:g} s")
        except (errors.ReadOnlySqlTransaction, errors.InsufficientPrivilege) as error:
            return QueryResult(end="refused", told=str(error))
        except self._psycopg.Error as error:
            return QueryResult(end="error", told=str(error).split("\n")[0])

    def schema(self) -> str:
        found = self.run(
            "SELECT table_name, string_agg(quote_ident(column_name) || ' ' || data_type, ', ' "
            "ORDER BY ordinal_position) FROM information_schema.columns WHERE table_schema NOT IN "
            "('pg_catalog', 'information_schema') GROUP BY table_schema, table_name ORDER BY 1"
        )
        return "\n".join(f"CREATE TABLE {quoted(name)} ({told});" for name, told in found.rows)

    def close(self) -> None:
        self._connection.close()


class ClickHouseDatabase:
    """ClickHouse within this process: a folder of its tables, or none."""

    dialect = "clickhouse"

    def __init__(self, path: Path | None = None) -> None:
        try:
            from chdb import session
        except ModuleNotFoundError:
            raise ValueError(
                "ClickHouse is run by chdb, which is not installed; "
                "`pip install 'nanochat[clickhouse]'` adds it"
            ) from None
        self._session = session.Session(str(path) if path else None)

    def execute(self, statement: str) -> None:
        """A statement that fills the tables of a database without a path."""
        self._session.query(statement)

    def run(
        self, query: str, max_rows: int = MAX_ROWS, timeout_s: float = TIMEOUT_S
    ) -> QueryResult:
        import json

        limits = (
            f"readonly = 1, max_execution_time = {timeout_s}, max_result_rows = {max_rows + 1}, "
            "result_overflow_mode = 'break', max_memory_usage = 1000000000"
        )
        try:
            text = self._session.query(
                f"SELECT * FROM ({query.rstrip().rstrip(';')}) SETTINGS {limits}",
                "JSONCompact",
            )
            told = json.loads(str(text))
        except Exception as error:  # chdb has one kind of error for everything
            self._session.query("SELECT 1")  # what the other has begun to write comes with this
            return _clickhouse_error(str(error), timeout_s)
        rows = told["data"]
        names = tuple(column["name"] for column in told["meta"])
        if len(rows) > max_rows:
            return QueryResult(
                end="too many rows", told=f"more than {max_rows:,} rows", columns=names
            )
        return QueryResult(end="rows", columns=names, rows=rows)

    def schema(self) -> str:
        found = self.run("SELECT create_table_query FROM system.tables WHERE database = 'default'")
        return "\n".join(f"{row[0]};" for row in found.rows)

    def close(self) -> None:
        self._session.close()


def _clickhouse_error(told: str, timeout_s: float) -> QueryResult:
    if "TIMEOUT_EXCEEDED" in told:
        return QueryResult(end="timeout", told=f"longer than {timeout_s:g} s")
    if "MEMORY_LIMIT" in told:
        return QueryResult(end="memory", told="more memory than it may have")
    if "READONLY" in told or "ACCESS_DENIED" in told:
        return QueryResult(end="refused", told=told.split("\n")[0])
    return QueryResult(end="error", told=told.split("\n")[0])


def without_password(url: str) -> str:
    """A URL as it may be shown."""
    parts = urlsplit(url)
    if parts.password is None:
        return url
    return url.replace(f":{parts.password}@", ":***@", 1)


def open_database(where: str) -> ReadDatabase:
    """A database by its URL or path: `sqlite:///shop.db`, `duckdb:///shop.duckdb`,
    `clickhouse:///folder`, `postgresql://user@host/name`, or a file of the first two.

    ValueError for one that there is not, or cannot be opened.
    """
    scheme, separator, _ = where.partition("://")
    if not separator:
        path = expanded(where)
        return FileDatabase(_engine_of_file(path), path)
    if scheme in ("postgres", "postgresql"):
        return PostgresDatabase(where)
    path = expanded(unquote(where[len(scheme) + len(":///") :]))
    if scheme in ("sqlite", "duckdb"):
        return FileDatabase(scheme, path)
    if scheme in ("clickhouse", "chdb"):
        return ClickHouseDatabase(path)
    raise ValueError(
        f"database {without_password(where)}: unknown kind {scheme}; use sqlite:///FILE, "
        "duckdb:///FILE, clickhouse:///FOLDER or postgresql://USER@HOST/NAME"
    )


def _engine_of_file(path: Path) -> str:
    """What a file is, by its first bytes."""
    if not path.is_file():
        raise ValueError(f"{path}: there is no such database file")
    with path.open("rb") as file:
        head = file.read(16)
    if head.startswith(b"SQLite format 3"):
        return "sqlite"
    if head[8:12] == b"DUCK":
        return "duckdb"
    raise ValueError(f"{path}: neither an SQLite nor a DuckDB file")


def row_texts(result: QueryResult, most: int) -> Sequence[Sequence[str]]:
    """The first rows as text, for a table that people read."""
    return [
        ["NULL" if value is None else str(value) for value in row] for row in result.rows[:most]
    ]
