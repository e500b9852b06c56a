"""Alembic runs this file for every command; the connection comes from `store/upgrading.py`.

A new step, after a change of the tables: `python dev/new_migration.py "what changed"`.
"""

from __future__ import annotations

from typing import Any

from alembic import context

import nanochat.store.account_tables  # noqa: F401  (fills the metadata)
import nanochat.store.chat_tables  # noqa: F401
from nanochat.store.table_base import PeoplesText, TableBase


def rendered(kind: str, item: Any, _: Any) -> Any:
    """What our own types are to a database."""
    return "sa.Text()" if kind == "type" and isinstance(item, PeoplesText) else False


context.configure(
    connection=context.config.attributes["connection"],
    target_metadata=TableBase.metadata,
    render_as_batch=True,  # SQLite changes a table by copying it
    render_item=rendered,
    transactional_ddl=True,
)
with context.begin_transaction():
    context.run_migrations()
