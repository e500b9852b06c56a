"""Conversations that are shown to others: to named users and groups, by a link that helps nobody
else.
"""

from __future__ import annotations

from collections.abc import Sequence

from sqlalchemy import select
from sqlalchemy.orm import Session

from nanochat.store import users
from nanochat.store.account_tables import GroupRow, UserRow
from nanochat.store.chat_tables import ConversationRow, ShareRow

MOST_NAMES = 100


def of(session: Session, conversation: ConversationRow) -> ShareRow | None:
    return session.scalar(select(ShareRow).where(ShareRow.conversation_id == conversation.id))


def share(
    session: Session, conversation: ConversationRow, people: Sequence[str], groups: Sequence[str]
) -> ShareRow:
    """Show a conversation to these users and groups and to nobody else. ValueError naming those
    that do not exist.
    """
    if len(people) + len(groups) > MOST_NAMES:
        raise ValueError(f"people: at most {MOST_NAMES} names; share with a group")
    user_rows = {name: users.named(session, name) for name in people}
    group_rows = {
        name: session.scalar(select(GroupRow).where(GroupRow.name == name)) for name in groups
    }
    missing = [name for name, row in {**user_rows, **group_rows}.items() if row is None]
    if missing:
        raise ValueError(f"people: nobody here is called {', '.join(missing)}; check the names")
    audience = {
        "users": sorted({row.public_id for row in user_rows.values() if row is not None}),
        "groups": sorted({row.public_id for row in group_rows.values() if row is not None}),
    }
    row = of(session, conversation)
    if row is None:
        row = ShareRow(conversation_id=conversation.id)
        session.add(row)
    row.audience = audience
    session.flush()
    return row


def end(session: Session, conversation: ConversationRow) -> None:
    """Show it to nobody any more."""
    row = of(session, conversation)
    if row is not None:
        session.delete(row)


def audience(session: Session, row: ShareRow) -> tuple[list[str], list[str]]:
    """(names of users, names of groups) who may read it."""
    people = select(UserRow.name).where(UserRow.public_id.in_(row.audience.get("users", [])))
    groups = select(GroupRow.name).where(GroupRow.public_id.in_(row.audience.get("groups", [])))
    return sorted(session.scalars(people)), sorted(session.scalars(groups))


def readable(session: Session, user_id: int, public_id: str) -> ConversationRow | None:
    """The conversation behind a link, if it is shown to this user or is theirs."""
    row = session.scalar(select(ShareRow).where(ShareRow.public_id == public_id))
    conversation = session.get(ConversationRow, row.conversation_id) if row else None
    if row is None or conversation is None or conversation.deleted:
        return None
    if conversation.user_id == user_id or in_audience(session, user_id, row):
        return conversation
    return None


def in_audience(session: Session, user_id: int, row: ShareRow) -> bool:
    reader = session.get(UserRow, user_id)
    if reader is None or reader.disabled:
        return False
    if reader.public_id in row.audience.get("users", []):
        return True
    groups = {group.public_id for group in users.groups_of(session, user_id)}
    return not groups.isdisjoint(row.audience.get("groups", []))


def owner_name(session: Session, conversation: ConversationRow) -> str:
    return session.get_one(UserRow, conversation.user_id).name
