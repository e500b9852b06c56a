"""The store, as the server uses it: reads in threads, writes together.

Everything that wants to write while a transaction is on its way goes into the next one, so that two
hundred answers cost hardly more commits than one. Whoever waits for a write knows that it is kept.
"""

from __future__ import annotations

import asyncio
import queue
import threading
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from functools import partial
from typing import Any, TypeVar

from nanochat.store.database import Database

READERS = 4
MOST_TOGETHER = 256

T = TypeVar("T")


@dataclass(kw_only=True)
class Change:
    """A query that wants to write, and who waits for it."""

    query: Callable[..., Any]
    kept: Future[Any] = field(default_factory=Future)


class Storage:
    """A database behind one event loop, or several. `start` before the first write."""

    def __init__(self, database: Database) -> None:
        self.database = database
        self._changes: queue.SimpleQueue[Change | None] = queue.SimpleQueue()
        self._readers = ThreadPoolExecutor(READERS, thread_name_prefix="store-reader")
        self._writer = threading.Thread(target=self._write, name="store-writer", daemon=True)

    def start(self) -> None:
        self._writer.start()

    def stop(self) -> None:
        """Until all that was to be written is."""
        self._changes.put(None)
        self._writer.join()
        self._readers.shutdown()
        self.database.close()

    async def read(self, query: Callable[..., T], *words: Any, **named: Any) -> T:
        """`query(session, ...)` in a transaction of its own."""
        call = partial(self.database.reading, query, *words, **named)
        return await asyncio.get_running_loop().run_in_executor(self._readers, call)

    async def write(self, query: Callable[..., T], *words: Any, **named: Any) -> T:
        """The same for a query that changes something; returns when it is kept."""
        result: T = await asyncio.wrap_future(self.submit(query, *words, **named))
        return result

    def submit(self, query: Callable[..., T], *words: Any, **named: Any) -> Future[T]:
        """The same without waiting, from any thread. It is written whoever goes away."""
        change = Change(query=lambda session: query(session, *words, **named))
        self._changes.put(change)
        return change.kept

    def _write(self) -> None:
        while (first := self._changes.get()) is not None:
            changes = [first]
            while len(changes) < MOST_TOGETHER and not self._changes.empty():
                more = self._changes.get()
                if more is None:
                    self._changes.put(None)
                    break
                changes.append(more)
            self._write_together(changes)

    def _write_together(self, changes: list[Change]) -> None:
        changes = [change for change in changes if change.kept.set_running_or_notify_cancel()]
        try:
            results = self.database.write_many([change.query for change in changes])
        except Exception:  # of one of them, or of the whole: only that one is to suffer
            results = [self._write_alone(change) for change in changes]
        for change, result in zip(changes, results, strict=True):
            if isinstance(result, Exception):
                change.kept.set_exception(result)
            else:
                change.kept.set_result(result)

    def _write_alone(self, change: Change) -> Any:
        try:
            return self.database.writing(change.query)
        except Exception as error:
            return error
