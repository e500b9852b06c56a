"""A database with our tables, on SQLite and on PostgreSQL."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import pytest

from nanochat.store.database import Database
from nanochat.store.upgrading import upgrade


@pytest.fixture
def database(database_url: Callable[[], str]) -> Iterator[Database]:
    database = Database(database_url())
    upgrade(database)
    yield database
    database.close()
