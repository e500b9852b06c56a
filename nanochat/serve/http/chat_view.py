"""Rows of the store as the page gets them: public ids, no bodies in lists, answers as HTML."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from sqlalchemy import Row
from sqlalchemy.orm import Session

from nanochat.serve.rendering import render_answer
from nanochat.store import messages, shares
from nanochat.store.chat_tables import AttachmentRow, ConversationRow, FolderRow, MessageRow
from nanochat.store.messages import MessageTree, MessageView

SHOWN_AT_ONCE = 40  # messages: a long conversation is read from its end


def list_entry(row: Row[Any]) -> dict[str, Any]:
    return {
        "id": row.public_id,
        "title": row.title,
        "model": row.model,
        "updated_at": row.updated_at,
        "folder": row.folder,
    }


def whole_conversation(
    session: Session, conversation: ConversationRow, user_id: int, before: str | None = None
) -> dict[str, Any]:
    """A conversation and the end of its shown version; `before`: the messages ahead of that one.
    `earlier` counts those that are left out in front.
    """
    tree = MessageTree(session, conversation)
    path = tree.path()
    if before is not None:
        at = tree.id_of.get(before)
        path = path[: path.index(at)] if at in path else []
    shown = path[-SHOWN_AT_ONCE:]
    views = messages.shown(session, tree, user_id, shown)
    return {
        **about(session, conversation),
        "earlier": len(path) - len(shown),
        "messages": [message_view(view) for view in views],
    }


def about(session: Session, conversation: ConversationRow) -> dict[str, Any]:
    folder = session.get(FolderRow, conversation.folder_id) if conversation.folder_id else None
    return {
        "id": conversation.public_id,
        "title": conversation.title,
        "model": conversation.model,
        "system_prompt": conversation.system_prompt,
        "settings": conversation.settings,
        "folder": None if folder is None else folder.public_id,
        "created_at": conversation.created_at,
        "updated_at": conversation.updated_at,
        "share": share_view(session, conversation),
    }


def share_view(session: Session, conversation: ConversationRow) -> dict[str, Any] | None:
    row = shares.of(session, conversation)
    if row is None:
        return None
    people, groups = shares.audience(session, row)
    return {"id": row.public_id, "people": people, "groups": groups}


def message_view(view: MessageView) -> dict[str, Any]:
    row = view.row
    feedback = view.feedback
    return {
        **message_fields(row),
        "parent": view.parent,
        "versions": view.versions,
        "attachments": [file_view(file) for file in view.attachments],
        "feedback": None
        if feedback is None
        else {
            "vote": feedback.vote,
            "comment": feedback.comment,
            "corrected": feedback.corrected,
        },
    }


def message_fields(row: MessageRow) -> dict[str, Any]:
    """What is in the message's own row; an answer also as HTML."""
    fields = {
        "id": row.public_id,
        "role": row.role,
        "content": row.content,
        "status": row.status,
        "model": row.model,
        "tokens": row.completion_tokens,
        "created_at": row.created_at,
    }
    if row.role == "assistant":
        fields["html"] = render_answer(row.parts or row.content)
    return fields


def file_view(file: AttachmentRow, notes: Sequence[str] = ()) -> dict[str, Any]:
    return {
        "id": file.public_id,
        "name": file.name,
        "media_type": file.media_type,
        "size_bytes": file.size_bytes,
        "tokens": file.tokens,
        "cut_tokens": file.cut_tokens,
        "notes": list(notes),
    }
