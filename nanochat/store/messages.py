"""Messages of a conversation: a tree, one path of which is shown. An edited question and an answer
given anew stand beside what they replace, under the same parent.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from sqlalchemy import func, select
from sqlalchemy.orm import Session, defer

from nanochat.store import chats
from nanochat.store.chat_tables import AttachmentRow, ConversationRow, FeedbackRow, MessageRow

BATCH = 200  # bodies read at once on the way back through a long conversation


class MessageTree:
    """Who follows whom in one conversation, without what they say: some numbers for each message,
    so that thousands are read in an instant.
    """

    def __init__(self, session: Session, conversation: ConversationRow) -> None:
        self.conversation = conversation
        rows = session.execute(
            select(MessageRow.id, MessageRow.public_id, MessageRow.parent_id)
            .where(MessageRow.conversation_id == conversation.id)
            .order_by(MessageRow.position, MessageRow.id)
        ).all()
        self.parent = {row.id: row.parent_id for row in rows}
        self.public_id = {row.id: row.public_id for row in rows}
        self.id_of = {row.public_id: row.id for row in rows}
        self.children: dict[int | None, list[int]] = {}
        for row in rows:
            self.children.setdefault(row.parent_id, []).append(row.id)

    def path(self) -> list[int]:
        """The ids of the messages that are shown, first to last."""
        leaf = self.conversation.active_leaf_id
        return self.path_to(leaf if leaf in self.parent else self.end_of(None))

    def path_to(self, leaf: int | None) -> list[int]:
        path = []
        while leaf is not None:
            path.append(leaf)
            leaf = self.parent[leaf]
        return path[::-1]

    def end_of(self, message: int | None) -> int | None:
        """Where the newest version of everything after a message ends."""
        while below := self.children.get(message):
            message = below[-1]
        return message

    def versions(self, message: int) -> list[str]:
        """Public ids of a message and those it replaced or was replaced by, oldest first."""
        return [self.public_id[other] for other in self.children[self.parent[message]]]


@dataclass(frozen=True, kw_only=True)
class MessageView:
    """A message with what belongs to it, as a reader sees it."""

    row: MessageRow
    parent: str | None
    versions: list[str]
    attachments: Sequence[AttachmentRow]
    feedback: FeedbackRow | None


def shown(
    session: Session, tree: MessageTree, user_id: int, path: Sequence[int]
) -> list[MessageView]:
    """The messages of these ids, in order, with their files and the user's own feedback."""
    rows = by_id(session, path)
    files: dict[int | None, list[AttachmentRow]] = {}
    for file in session.scalars(
        select(AttachmentRow)
        .where(AttachmentRow.message_id.in_(path))
        .order_by(AttachmentRow.id)
        .options(defer(AttachmentRow.text))
    ):
        files.setdefault(file.message_id, []).append(file)
    feedback = {
        row.message_id: row
        for row in session.scalars(
            select(FeedbackRow).where(
                FeedbackRow.message_id.in_(path), FeedbackRow.user_id == user_id
            )
        )
    }
    views = []
    for number in path:
        parent = tree.parent[number]
        views.append(
            MessageView(
                row=rows[number],
                parent=None if parent is None else tree.public_id[parent],
                versions=tree.versions(number),
                attachments=files.get(number, ()),
                feedback=feedback.get(number),
            )
        )
    return views


def by_id(session: Session, ids: Iterable[int]) -> dict[int, MessageRow]:
    query = select(MessageRow).where(MessageRow.id.in_(list(ids)))
    return {row.id: row for row in session.scalars(query)}


def add(
    session: Session,
    conversation: ConversationRow,
    parent_id: int | None,
    role: str,
    **fields: Any,
) -> MessageRow:
    """A new message after `parent_id`, the newest of those that stand there."""
    same_place = (
        MessageRow.parent_id.is_(None) if parent_id is None else MessageRow.parent_id == parent_id
    )
    last = session.scalar(
        select(func.max(MessageRow.position)).where(
            MessageRow.conversation_id == conversation.id, same_place
        )
    )
    message = MessageRow(
        conversation_id=conversation.id,
        parent_id=parent_id,
        role=role,
        position=0 if last is None else last + 1,
        **storable(fields),
    )
    session.add(message)
    session.flush()
    chats.touch(conversation)
    return message


def storable(fields: dict[str, Any]) -> dict[str, Any]:
    """Columns without the zero character, which PostgreSQL does not keep in a text."""
    if "content" in fields:
        return {**fields, "content": fields["content"].replace("\0", "\ufffd")}
    return fields


def newest(session: Session, path: Sequence[int], most_characters: int) -> list[MessageRow]:
    """The last messages of a path, first to last, as many as may fit so many characters, and at
    least one: a context holds only the end of a long conversation.
    """
    kept: list[MessageRow] = []
    characters = 0
    for end in range(len(path), 0, -BATCH):
        ids = path[max(0, end - BATCH) : end]
        rows = by_id(session, ids)
        for number in reversed(ids):
            characters += len(rows[number].content)
            if kept and characters > most_characters:
                return kept[::-1]
            kept.append(rows[number])
    return kept[::-1]


def owned(session: Session, user_id: int, public_id: str) -> MessageRow | None:
    """A message of the user's own conversations."""
    return session.scalar(
        select(MessageRow)
        .join(ConversationRow, ConversationRow.id == MessageRow.conversation_id)
        .where(
            MessageRow.public_id == public_id,
            ConversationRow.user_id == user_id,
            ConversationRow.deleted.is_(False),
        )
    )
