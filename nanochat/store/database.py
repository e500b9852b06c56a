"""Opening the database: SQLite in a file, or PostgreSQL by its address.

`read()` and `write()` give a session in one transaction. A transaction that writes takes SQLite's
lock at its beginning, so that two never wait for each other halfway.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from pathlib import Path
from typing import Any, TypeVar

from sqlalchemy import URL, Connection, create_engine, event, make_url
from sqlalchemy.exc import ArgumentError, OperationalError
from sqlalchemy.orm import Session

from nanochat.runtime.base_dir import base_dir

FILE_NAME = "nanochat.db"
BUSY_TIMEOUT_S = 30.0
KINDS = "sqlite:///PATH or postgresql://USER:PASSWORD@HOST/NAME"

T = TypeVar("T")


def default_url() -> str:
    """SQLite in the base directory."""
    return f"sqlite:///{base_dir() / FILE_NAME}"


def chosen_url(named: str | None) -> str:
    """What was named, else $NANOCHAT_DATABASE, else SQLite in the base directory."""
    return named or os.environ.get("NANOCHAT_DATABASE") or default_url()


class Database:
    """A database by its address. ValueError when the address is wrong or nobody answers there."""

    def __init__(self, url: str) -> None:
        self.url = checked_url(url)
        self.is_sqlite = self.url.get_backend_name() == "sqlite"
        settings: dict[str, Any] = {"pool_size": 8, "max_overflow": 8}
        if self.is_sqlite:
            assert self.url.database is not None
            prepare_file(Path(self.url.database))
            settings["connect_args"] = {"timeout": BUSY_TIMEOUT_S, "check_same_thread": False}
        else:
            settings["pool_pre_ping"] = True
        try:
            self.engine = create_engine(self.url, **settings)
        except ImportError:
            raise ValueError(
                f"--database={self.shown}: PostgreSQL needs the extra postgres; "
                "pip install 'nanochat[postgres]'"
            ) from None
        if self.is_sqlite:
            event.listen(self.engine, "connect", prepare_sqlite)
            event.listen(self.engine, "begin", begin_sqlite)
        self._writing = self.engine.execution_options(writes=True)
        self._one_writer = threading.Lock()  # waiting here is fair, in SQLite it is not
        self._check()

    @property
    def shown(self) -> str:
        """The address without its password."""
        return self.url.render_as_string(hide_password=True)

    def _check(self) -> None:
        try:
            with self.engine.connect():
                pass
        except OperationalError as error:
            reason = str(error.orig).strip().splitlines()[0]
            raise ValueError(
                f"--database={self.shown}: cannot be opened ({reason}); check that the server runs "
                "and that path, name and password are right"
            ) from None

    @contextmanager
    def read(self) -> Iterator[Session]:
        """A session for queries. Rows stay readable after it."""
        with Session(self.engine, expire_on_commit=False) as session, session.begin():
            yield session

    @contextmanager
    def write(self) -> Iterator[Session]:
        """A session whose changes are kept when the block ends, and forgotten when it raises."""
        with (
            self._lock(),
            Session(self._writing, expire_on_commit=False) as session,
            session.begin(),
        ):
            yield session

    def reading(self, query: Callable[..., T], *words: Any, **named: Any) -> T:
        """`query(session, ...)` in a transaction of its own."""
        with self.read() as session:
            return query(session, *words, **named)

    def writing(self, query: Callable[..., T], *words: Any, **named: Any) -> T:
        """The same for a query that changes something."""
        with self.write() as session:
            return query(session, *words, **named)

    @contextmanager
    def snapshot(self) -> Iterator[Connection]:
        """A connection that sees everything as it is now, whatever is written meanwhile."""
        engine = self.engine
        if not self.is_sqlite:
            engine = engine.execution_options(isolation_level="REPEATABLE READ")
        with engine.begin() as connection:
            yield connection

    def write_many(self, queries: Sequence[Callable[[Session], Any]]) -> list[Any]:
        """Results of several queries in one transaction. When one raises, nothing is written: each
        is to be tried alone.
        """
        results = []
        with self._lock(), self._writing.begin() as connection:
            for query in queries:
                session = Session(
                    connection, expire_on_commit=False, join_transaction_mode="rollback_only"
                )
                with session, session.begin():  # its end writes to the database, and no more
                    results.append(query(session))
        return results

    def _lock(self) -> AbstractContextManager[Any]:
        return self._one_writer if self.is_sqlite else nullcontext()

    def close(self) -> None:
        self.engine.dispose()


def checked_url(text: str) -> URL:
    """The address with its driver. ValueError for one that is none of ours."""
    try:
        url = make_url(text)
    except ArgumentError:
        raise ValueError(f"--database={text}: not an address; write {KINDS}") from None
    kind = url.get_backend_name()
    if kind == "sqlite" and url.database and url.database != ":memory:":
        return url.set(drivername="sqlite")
    if kind in ("postgresql", "postgres") and url.database:
        return url.set(drivername="postgresql+psycopg")
    raise ValueError(
        f"--database={url.render_as_string(hide_password=True)}: not supported; write {KINDS}"
    )


def prepare_file(path: Path) -> None:
    """An empty file that only its owner can read, where there is none yet: it will hold secrets."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch(mode=0o600, exist_ok=True)
    except OSError as error:
        raise ValueError(f"--database={path}: cannot be opened ({error.strerror})") from None


def prepare_sqlite(connection: Any, record: Any) -> None:
    """What every connection is told first. What is committed outlives the process, however it ends;
    the last moments before a power cut may be lost, never more.
    """
    connection.isolation_level = None  # transactions begin in `begin_sqlite`
    for pragma in ("journal_mode = WAL", "synchronous = NORMAL", "foreign_keys = ON"):
        connection.execute(f"PRAGMA {pragma}")


def begin_sqlite(connection: Connection) -> None:
    writes = connection.get_execution_options().get("writes")
    connection.exec_driver_sql("BEGIN IMMEDIATE" if writes else "BEGIN")
