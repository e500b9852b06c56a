"""What a server that was killed has left marked as on its way."""

from __future__ import annotations

from typing import Any

from sqlalchemy import or_, update
from sqlalchemy.orm import Session

from nanochat.store.account_tables import UsageRow
from nanochat.store.chat_tables import MessageRow
from nanochat.store.table_base import now_s

SPARE_S = 60.0


def mark_cut(session: Session, server: str, time_limit_s: float) -> int:
    """Called by a server when it starts -> how many rows. Its own are over, since nobody else can
    have its name, and so are all that are older than an answer may take. An answer keeps what was
    written, a row of usage the most that it might have taken: nobody knows what it took.
    """
    marked = 0
    for table, status in ((UsageRow, "running"), (MessageRow, "streaming")):
        over = or_(table.server == server, table.created_at < now_s() - time_limit_s - SPARE_S)
        change = update(table).where(table.status == status, over).values(status="cut")
        result: Any = session.execute(change)
        marked += result.rowcount
    return marked
