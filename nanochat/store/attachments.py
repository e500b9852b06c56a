"""Files of a user as text, kept with the message they were sent with."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from sqlalchemy import ColumnElement, select
from sqlalchemy.orm import Session

from nanochat.store.chat_tables import AttachmentRow, ConversationRow

MOST_UNSENT = 100  # files that were uploaded and belong to no message yet


def add(session: Session, user_id: int, **fields: Any) -> AttachmentRow:
    """A file that belongs to no message yet. The oldest such ones go when there are many."""
    file = AttachmentRow(user_id=user_id, **fields)
    session.add(file)
    session.flush()
    unsent = select(AttachmentRow).where(
        AttachmentRow.user_id == user_id, AttachmentRow.message_id.is_(None)
    )
    surplus = unsent.order_by(AttachmentRow.id.desc()).offset(MOST_UNSENT)
    for old in session.scalars(surplus):
        session.delete(old)
    return file


def found(session: Session, user_id: int, public_ids: Sequence[str]) -> list[AttachmentRow]:
    """The user's files of these ids, in that order; those that are not theirs are missing."""
    query = select(AttachmentRow).where(
        AttachmentRow.public_id.in_(public_ids), AttachmentRow.user_id == user_id
    )
    rows = {row.public_id: row for row in session.scalars(query)}
    return [rows[public_id] for public_id in public_ids if public_id in rows]


def of_messages(session: Session, message_ids: Sequence[int]) -> dict[int, list[AttachmentRow]]:
    """The files of messages, with their texts."""
    return _by_message(session, AttachmentRow.message_id.in_(message_ids))


def of_conversation(
    session: Session, conversation: ConversationRow
) -> dict[int, list[AttachmentRow]]:
    """The files of all messages of a conversation, with their texts."""
    return _by_message(session, AttachmentRow.conversation_id == conversation.id)


def _by_message(session: Session, condition: ColumnElement[bool]) -> dict[int, list[AttachmentRow]]:
    files: dict[int, list[AttachmentRow]] = {}
    for row in session.scalars(select(AttachmentRow).where(condition).order_by(AttachmentRow.id)):
        if row.message_id is not None:
            files.setdefault(row.message_id, []).append(row)
    return files


def copy(file: AttachmentRow) -> AttachmentRow:
    """The same file for another message: an edited question keeps its files."""
    return AttachmentRow(
        user_id=file.user_id,
        name=file.name,
        media_type=file.media_type,
        text=file.text,
        size_bytes=file.size_bytes,
    )
