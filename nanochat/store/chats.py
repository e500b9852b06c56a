"""Conversations of a user: the list, a new one, one of them. Every query names whose they are."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any, cast

from sqlalchemy import ColumnElement, Row, and_, or_, select
from sqlalchemy.orm import Session

from nanochat.store.chat_tables import ConversationRow, FolderRow, MessageRow
from nanochat.store.table_base import now_s

MOST_TITLE_CHARACTERS = 200
SEARCHED = 200  # conversations that a search returns at most


def listed(
    session: Session,
    user_id: int,
    *,
    search: str = "",
    folder: str | None = None,
    after: str | None = None,
    limit: int = 50,
) -> list[Row[Any]]:
    """(public_id, title, model, updated_at, folder) of conversations, newest first, without what
    was said in them. `search` is looked for in titles and messages; `after` is the last one that is
    known, to go on from.
    """
    query = (
        select(
            ConversationRow.public_id,
            ConversationRow.title,
            ConversationRow.model,
            ConversationRow.updated_at,
            FolderRow.public_id.label("folder"),
        )
        .outerjoin(FolderRow, FolderRow.id == ConversationRow.folder_id)
        .where(ConversationRow.user_id == user_id, ConversationRow.deleted.is_(False))
        .order_by(ConversationRow.updated_at.desc(), ConversationRow.id.desc())
        .limit(min(limit, SEARCHED))
    )
    if folder is not None:
        query = query.where(FolderRow.public_id == folder, FolderRow.user_id == user_id)
    if search:
        said = select(MessageRow.conversation_id).where(holds(session, MessageRow.content, search))
        titled = holds(session, ConversationRow.title, search)
        query = query.where(or_(titled, ConversationRow.id.in_(said)))
    last = found(session, user_id, after) if after else None
    if last is not None:
        older = ConversationRow.updated_at < last.updated_at
        same = and_(ConversationRow.updated_at == last.updated_at, ConversationRow.id < last.id)
        query = query.where(or_(older, same))
    return list(session.execute(query))


def holds(session: Session, column: Any, words: str) -> ColumnElement[bool]:
    """Whether a text holds these words, in small letters or large. (SQLite's own LIKE is several
    times as fast as that of two texts made small, and as deaf to letters beyond ASCII.)
    """
    pattern = "%" + re.sub(r"([\\%_])", r"\\\1", words) + "%"
    sqlite = session.get_bind().dialect.name == "sqlite"
    compare = column.like if sqlite else column.ilike
    return cast("ColumnElement[bool]", compare(pattern, escape="\\"))


def found(session: Session, user_id: int, public_id: str) -> ConversationRow | None:
    """The user's conversation of that id, and nobody else's."""
    return session.scalar(
        select(ConversationRow).where(
            ConversationRow.public_id == public_id,
            ConversationRow.user_id == user_id,
            ConversationRow.deleted.is_(False),
        )
    )


def all_of(session: Session, user_id: int) -> Iterator[ConversationRow]:
    """Every conversation of a user, oldest first."""
    query = select(ConversationRow).where(
        ConversationRow.user_id == user_id, ConversationRow.deleted.is_(False)
    )
    yield from session.scalars(query.order_by(ConversationRow.id).execution_options(yield_per=100))


def add(session: Session, user_id: int, **fields: Any) -> ConversationRow:
    conversation = ConversationRow(user_id=user_id, **fields)
    session.add(conversation)
    session.flush()
    return conversation


def touch(conversation: ConversationRow) -> None:
    """Something was said: it moves to the top of the list."""
    conversation.updated_at = now_s()


def title_of(text: str) -> str:
    """A title from what was asked first: its first line, cut between words."""
    line = next((line.strip() for line in text.splitlines() if line.strip()), "")
    if len(line) <= 60:
        return line
    return line[:60].rpartition(" ")[0].rstrip(" ,;:") + " …" if " " in line[:60] else line[:60]


def clean_title(text: str) -> str:
    """One line without control characters."""
    words = "".join(sign if sign.isprintable() else " " for sign in text).split()
    return " ".join(words)[:MOST_TITLE_CHARACTERS]


def delete(session: Session, conversation: ConversationRow) -> None:
    """Remove it with all its messages, files and links; feedback stays."""
    session.delete(conversation)
