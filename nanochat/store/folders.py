"""Folders of a user. A conversation is in one of them or in none."""

from __future__ import annotations

from sqlalchemy import func, select
from sqlalchemy.orm import Session

from nanochat.store.chat_tables import FolderRow
from nanochat.store.chats import clean_title

MOST_FOLDERS = 500
MOST_NAME_CHARACTERS = 80


def listed(session: Session, user_id: int) -> list[FolderRow]:
    query = select(FolderRow).where(FolderRow.user_id == user_id)
    return list(session.scalars(query.order_by(func.lower(FolderRow.name))))


def found(session: Session, user_id: int, public_id: str) -> FolderRow | None:
    return session.scalar(
        select(FolderRow).where(FolderRow.public_id == public_id, FolderRow.user_id == user_id)
    )


def named(session: Session, user_id: int, name: str) -> FolderRow:
    """The user's folder of that name, made when there is none. ValueError for no name, or too many
    folders.
    """
    name = checked_name(name)
    query = select(FolderRow).where(FolderRow.user_id == user_id)
    folder = session.scalar(query.where(FolderRow.name == name))
    if folder is not None:
        return folder
    count = session.scalar(select(func.count()).where(FolderRow.user_id == user_id)) or 0
    if count >= MOST_FOLDERS:
        raise ValueError(f"folder: there are {count} already; remove some")
    folder = FolderRow(user_id=user_id, name=name)
    session.add(folder)
    session.flush()
    return folder


def rename(session: Session, folder: FolderRow, name: str) -> None:
    """ValueError for a name that is taken."""
    name = checked_name(name)
    taken = select(FolderRow).where(FolderRow.user_id == folder.user_id, FolderRow.name == name)
    other = session.scalar(taken)
    if other is not None and other is not folder:
        raise ValueError(f"name: there is a folder {name!r} already; choose another name")
    folder.name = name


def delete(session: Session, folder: FolderRow) -> None:
    """Its conversations stay, in no folder."""
    session.delete(folder)


def checked_name(name: str) -> str:
    name = clean_title(name)[:MOST_NAME_CHARACTERS]
    if not name:
        raise ValueError("name: a folder needs a name")
    return name
