"""Conversations as plain data, to be kept elsewhere and read back: every version of every message,
every file, every setting.
"""

from __future__ import annotations

from typing import Any

from sqlalchemy import select
from sqlalchemy.orm import Session

from nanochat.store import attachments, chats, folders
from nanochat.store.chat_tables import AttachmentRow, ConversationRow, FolderRow, MessageRow
from nanochat.store.messages import MessageTree, by_id

VERSION = 1
CONVERSATION_FIELDS = ("title", "model", "system_prompt", "settings", "created_at", "updated_at")
MESSAGE_FIELDS = (
    "position",
    "role",
    "content",
    "parts",
    "status",
    "model",
    "checkpoint_hash",
    "settings",
    "prompt_tokens",
    "completion_tokens",
    "created_at",
)
FILE_FIELDS = ("name", "media_type", "text", "tokens", "cut_tokens", "size_bytes", "created_at")


def exported(session: Session, conversation: ConversationRow) -> dict[str, Any]:
    """A conversation with everything in it. Messages are numbered from 0, parents first; `active`
    is the last one of the version that was shown.
    """
    rows = list(
        session.scalars(
            select(MessageRow)
            .where(MessageRow.conversation_id == conversation.id)
            .order_by(MessageRow.id)
        )
    )
    number = {row.id: place for place, row in enumerate(rows)}
    files = attachments.of_conversation(session, conversation)
    messages = []
    for row in rows:
        message = {name: getattr(row, name) for name in MESSAGE_FIELDS}
        message["parent"] = None if row.parent_id is None else number[row.parent_id]
        message["attachments"] = [
            {name: getattr(file, name) for name in FILE_FIELDS} for file in files.get(row.id, ())
        ]
        messages.append(message)
    folder = session.get(FolderRow, conversation.folder_id) if conversation.folder_id else None
    return {
        **{name: getattr(conversation, name) for name in CONVERSATION_FIELDS},
        "folder": None if folder is None else folder.name,
        "active": number.get(conversation.active_leaf_id or -1),
        "messages": messages,
    }


def imported(session: Session, user_id: int, data: dict[str, Any]) -> ConversationRow:
    """A new conversation of the user from what `exported` gave, checked before. ValueError for a
    parent that does not stand before its message.
    """
    name = data.get("folder")
    folder = folders.named(session, user_id, name) if name else None
    conversation = chats.add(
        session,
        user_id,
        folder_id=None if folder is None else folder.id,
        **{field: data[field] for field in CONVERSATION_FIELDS},
    )
    made = [
        MessageRow(
            conversation_id=conversation.id, **{field: message[field] for field in MESSAGE_FIELDS}
        )
        for message in data["messages"]
    ]
    session.add_all(made)
    session.flush()  # now they have numbers, by which they name each other
    for place, (row, message) in enumerate(zip(made, data["messages"], strict=True)):
        parent = message["parent"]
        if parent is not None and not 0 <= parent < place:
            raise ValueError(f"messages.{place}.parent={parent}: must name an earlier message")
        row.parent_id = None if parent is None else made[parent].id
        for file in message["attachments"]:
            session.add(
                AttachmentRow(
                    user_id=user_id,
                    conversation_id=conversation.id,
                    message_id=row.id,
                    **{field: file[field] for field in FILE_FIELDS},
                )
            )
    active = data["active"]
    if active is not None and not 0 <= active < len(made):
        raise ValueError(f"active={active}: must be the number of a message")
    conversation.active_leaf_id = None if active is None else made[active].id
    return conversation


def as_markdown(session: Session, conversation: ConversationRow) -> str:
    """The version that is shown, to be read: a heading for each message, files named."""
    path = MessageTree(session, conversation).path()
    rows = by_id(session, path)
    files = attachments.of_conversation(session, conversation)
    lines = [f"# {conversation.title or 'Conversation'}", ""]
    if conversation.system_prompt:
        lines += ["## System", "", conversation.system_prompt, ""]
    for number in path:
        row = rows[number]
        lines += ["## You" if row.role == "user" else f"## Answer ({row.model or 'model'})", ""]
        lines += [f"*Attached: {file.name}*" for file in files.get(number, ())]
        lines += [row.content.strip(), ""]
    return "\n".join(lines)
