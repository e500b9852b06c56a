"""Runs queries on a small database under limits. This file is also the program that runs inside a
cage (see tasks/sql_judge.py), so it imports the standard library and, where asked for, duckdb.
"""

from __future__ import annotations

import datetime
import decimal
import json
import sqlite3
import sys
import threading
import time
from typing import Any

# What SQLite may do for a query: begin a SELECT, read a column, call a function, go on with a
# recursive table. Writing, ATTACH, PRAGMA and the rest are refused before they begin.
ALLOWED = {sqlite3.SQLITE_SELECT, sqlite3.SQLITE_READ, sqlite3.SQLITE_FUNCTION, 33}
REFUSED_FUNCTIONS = {"load_extension", "readfile", "writefile", "edit", "fts3_tokenizer"}
LARGEST_VALUE_BYTES = 10_000_000
LARGEST_HEAP_BYTES = 256 * 1024 * 1024
LIMIT_LENGTH = 0  # SQLite's number for that limit, which Python names only since 3.11
STEPS_BETWEEN_LOOKS = 2000
PATIENCE = 10  # seconds of the clock for one of the processor
LOOK_EVERY_S = 0.02


def plain(value: Any) -> Any:
    """A database's value as JSON has it: a number, text, None."""
    if value is None or isinstance(value, (int, float, str)):
        return value
    if isinstance(value, decimal.Decimal):
        return int(value) if value == value.to_integral_value() else float(value)
    if isinstance(value, bytes):
        return value.hex()
    if isinstance(value, (datetime.date, datetime.time)):
        return value.isoformat(" ") if isinstance(value, datetime.datetime) else value.isoformat()
    if isinstance(value, (list, tuple)):
        return [plain(item) for item in value]
    if isinstance(value, dict):
        return {str(key): plain(item) for key, item in value.items()}
    return str(value)


def outcome(end: str, told: str = "", names: Any = (), rows: Any = ()) -> dict[str, Any]:
    """How a query ended. end: rows, error, refused, timeout, too many rows, memory."""
    return {"end": end, "told": told, "columns": list(names), "rows": [list(row) for row in rows]}


class Clock:
    """Whether a query has had its time: of the processor, so that a busy machine makes nothing
    wrong, or many times as much of the clock.
    """

    def __init__(self, timeout_s: float, processor: Any) -> None:
        self.processor = processor
        self.stop_at = processor() + timeout_s
        self.stop_at_wall = time.monotonic() + PATIENCE * timeout_s

    def over(self) -> bool:
        return self.processor() > self.stop_at or time.monotonic() > self.stop_at_wall


def taken(cursor: Any, max_rows: int) -> dict[str, Any]:
    """The rows that a cursor gives, or that there are too many of them."""
    names = [column[0] for column in cursor.description or ()]
    rows: list[list[Any]] = []
    while True:
        more = cursor.fetchmany(1000)
        if not more:
            return outcome("rows", "", names, rows)
        rows += [[plain(value) for value in row] for row in more]
        if len(rows) > max_rows:
            return outcome("too many rows", f"more than {max_rows:,} rows", names, rows[:max_rows])


class SQLiteDatabase:
    """One SQLite database that can only be read. `path`: a file; without one it is in memory and
    `create` and `rows` fill it.
    """

    def __init__(self, create: Any = (), rows: Any = (), path: str | None = None) -> None:
        where = f"file:{path}?mode=ro" if path else ":memory:"
        self.connection = sqlite3.connect(
            where, uri=path is not None, isolation_level=None, check_same_thread=False
        )
        self.connection.text_factory = lambda data: data.decode("utf-8", "replace")
        for statement in create:
            self.connection.execute(statement)
        for statement, values in rows:
            self.connection.executemany(statement, values)
        if path:  # of all of SQLite in this process
            self.connection.execute(f"PRAGMA hard_heap_limit = {LARGEST_HEAP_BYTES}")
        if hasattr(self.connection, "setlimit"):  # Python 3.11
            self.connection.setlimit(LIMIT_LENGTH, LARGEST_VALUE_BYTES)
        self.connection.set_authorizer(self._allow)
        self.refused = ""

    def _allow(self, action: int, first: str | None, second: str | None, *rest: Any) -> int:
        named = (second or "").lower() if action == sqlite3.SQLITE_FUNCTION else ""
        if action in ALLOWED and named not in REFUSED_FUNCTIONS:
            return sqlite3.SQLITE_OK
        codes = {
            value: key
            for key, value in vars(sqlite3).items()
            if key.startswith("SQLITE_") and key.isupper() and isinstance(value, int)
        }
        what = named or codes.get(action, str(action)).removeprefix("SQLITE_").replace("_", " ")
        self.refused = named or f"{what} {first or ''}".strip()
        return sqlite3.SQLITE_DENY

    def run(self, query: str, max_rows: int, timeout_s: float) -> dict[str, Any]:
        """A query's rows, or how else it ended."""
        self.refused = ""
        clock = Clock(timeout_s, time.thread_time)
        self.connection.set_progress_handler(clock.over, STEPS_BETWEEN_LOOKS)
        try:
            return taken(self.connection.execute(query), max_rows)
        except (sqlite3.Error, sqlite3.Warning, OverflowError, ValueError) as error:
            if self.refused:
                return outcome("refused", self.refused)
            if "interrupted" in str(error):
                return outcome("timeout", f"longer than {timeout_s:g} s")
            return outcome("error", str(error))
        except MemoryError:
            return outcome("memory", "more memory than it may have")

    def close(self) -> None:
        self.connection.close()


class DuckDatabase:
    """The same of DuckDB: one thread, no file, no network, no extension, and none of that can be
    undone by a query.
    """

    def __init__(self, create: Any = (), rows: Any = (), path: str | None = None) -> None:
        import duckdb

        self.duckdb = duckdb
        self.connection = duckdb.connect(
            path or ":memory:", read_only=path is not None, config={"threads": "1"}
        )
        for statement in create:
            self.connection.execute(statement)
        for statement, values in rows:
            if values:  # all of them at once: one at a time takes longer than everything else
                one = f"({', '.join('?' * len(values[0]))})"
                many = statement.replace(one, ", ".join([one] * len(values)))
                self.connection.execute(many, [value for row in values for value in row])
        for setting in (
            "memory_limit='256MB'",
            "max_temp_directory_size='0KB'",
            "enable_external_access=false",
            "lock_configuration=true",
        ):
            self.connection.execute(f"SET {setting}")

    def run(self, query: str, max_rows: int, timeout_s: float) -> dict[str, Any]:
        """A query's rows, or how else it ended."""
        ended = threading.Event()
        watch = threading.Thread(target=self._watch, args=(ended, timeout_s), daemon=True)
        watch.start()
        try:
            found = self.connection.extract_statements(query)
            kinds = [str(each.type).rsplit(".", 1)[-1] for each in found]
            if kinds not in (["SELECT"], ["SELECT_STATEMENT"]):
                return outcome("refused", ", ".join(kinds) or "nothing")
            return taken(self.connection.execute(query), max_rows)
        except self.duckdb.InterruptException:
            return outcome("timeout", f"longer than {timeout_s:g} s")
        except self.duckdb.PermissionException as error:
            return outcome("refused", str(error).split("\n")[0])
        except (self.duckdb.OutOfMemoryException, MemoryError) as error:
            return outcome("memory", str(error) or "more memory than it may have")
        except (self.duckdb.Error, OverflowError, ValueError, RuntimeError) as error:
            return outcome("error", str(error).split("\n")[0])
        finally:
            ended.set()
            watch.join()

    def _watch(self, ended: threading.Event, timeout_s: float) -> None:
        """Interrupt the query when its time is over."""
        clock = Clock(timeout_s, time.process_time)
        while not ended.wait(LOOK_EVERY_S):
            if clock.over():
                self.connection.interrupt()

    def close(self) -> None:
        self.connection.close()


ENGINES: dict[str, Any] = {"sqlite": SQLiteDatabase, "duckdb": DuckDatabase}


def main(job: dict[str, Any]) -> None:
    """Run a query on every database of a job, up to the first on which it does not end well; a line
    of JSON for each.
    """
    for path in job["packages"]:
        sys.path.insert(0, path)
    for made in job["databases"]:
        database = ENGINES[job["engine"]](made["create"], made["rows"])
        told = database.run(job["query"], job["max_rows"], job["timeout_s"])
        print(json.dumps(told), flush=True)
        database.close()
        if told["end"] != "rows":
            break
