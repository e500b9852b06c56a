"""Tables of what was said: folders, conversations, their messages, attachments, shares, feedback.

`id` is for joins and never leaves the server; `public_id` is what addresses and answers show. Times
are seconds since 1970, UTC.
"""

from __future__ import annotations

from typing import Any

from sqlalchemy import JSON, ForeignKey, Index, String, UniqueConstraint
from sqlalchemy.orm import Mapped, mapped_column

from nanochat.store.table_base import PeoplesText, TableBase, new_id, now_s


class FolderRow(TableBase):
    """Where a user puts conversations."""

    __tablename__ = "folders"
    __table_args__ = (UniqueConstraint("user_id", "name"),)

    id: Mapped[int] = mapped_column(primary_key=True)
    public_id: Mapped[str] = mapped_column(String(32), default=new_id, unique=True)
    user_id: Mapped[int] = mapped_column(ForeignKey("users.id", ondelete="CASCADE"))
    name: Mapped[str] = mapped_column(PeoplesText)


class ConversationRow(TableBase):
    """A tree of messages. `active_leaf_id` is the last message of the version that is shown (no
    foreign key: each of the two tables would have to be there before the other).
    """

    __tablename__ = "conversations"
    __table_args__ = (
        Index("ix_conversations_list", "user_id", "deleted", "updated_at"),
        Index("ix_conversations_folder_id", "folder_id"),
    )

    id: Mapped[int] = mapped_column(primary_key=True)
    public_id: Mapped[str] = mapped_column(String(32), default=new_id, unique=True)
    user_id: Mapped[int] = mapped_column(ForeignKey("users.id", ondelete="CASCADE"))
    folder_id: Mapped[int | None] = mapped_column(ForeignKey("folders.id", ondelete="SET NULL"))
    title: Mapped[str] = mapped_column(PeoplesText, default="")
    model: Mapped[str | None] = mapped_column(String(255))
    system_prompt: Mapped[str] = mapped_column(PeoplesText, default="")
    settings: Mapped[dict[str, Any]] = mapped_column(default=dict)
    created_at: Mapped[float] = mapped_column(default=now_s)
    updated_at: Mapped[float] = mapped_column(default=now_s, index=True)
    active_leaf_id: Mapped[int | None]
    deleted: Mapped[bool] = mapped_column(default=False)


class MessageRow(TableBase):
    """What one side said. Edits and regenerations are further children of the same parent, in the
    order of `position`. `parts` are text and tool calls in order, where there is more than text;
    `server` is who writes it while `status` is "streaming" (then complete, stopped, failed, cut).
    The parent's deletion does not cascade: SQLite follows a chain of such only 1,000 deep.
    """

    __tablename__ = "messages"
    __table_args__ = (
        Index("ix_messages_conversation_id", "conversation_id", "id"),
        Index("ix_messages_parent_id", "parent_id"),
    )

    id: Mapped[int] = mapped_column(primary_key=True)
    public_id: Mapped[str] = mapped_column(String(32), default=new_id, unique=True)
    conversation_id: Mapped[int] = mapped_column(ForeignKey("conversations.id", ondelete="CASCADE"))
    parent_id: Mapped[int | None] = mapped_column(ForeignKey("messages.id"))
    position: Mapped[int] = mapped_column(default=0)
    role: Mapped[str] = mapped_column(String(16))
    content: Mapped[str] = mapped_column(PeoplesText, default="")
    parts: Mapped[list[Any] | None] = mapped_column(JSON(none_as_null=True))
    status: Mapped[str] = mapped_column(String(16), default="complete", index=True)
    model: Mapped[str | None] = mapped_column(String(255))
    checkpoint_hash: Mapped[str | None] = mapped_column(String(64))
    settings: Mapped[dict[str, Any]] = mapped_column(default=dict)
    prompt_tokens: Mapped[int | None]
    completion_tokens: Mapped[int | None]
    created_at: Mapped[float] = mapped_column(default=now_s)
    server: Mapped[str | None] = mapped_column(String(255))


class AttachmentRow(TableBase):
    """The text of a file that goes into the context. `cut_tokens` did not fit."""

    __tablename__ = "attachments"

    id: Mapped[int] = mapped_column(primary_key=True)
    public_id: Mapped[str] = mapped_column(String(32), default=new_id, unique=True)
    user_id: Mapped[int] = mapped_column(ForeignKey("users.id", ondelete="CASCADE"), index=True)
    conversation_id: Mapped[int | None] = mapped_column(
        ForeignKey("conversations.id", ondelete="CASCADE"), index=True
    )
    message_id: Mapped[int | None] = mapped_column(
        ForeignKey("messages.id", ondelete="SET NULL"), index=True
    )
    name: Mapped[str] = mapped_column(PeoplesText)
    media_type: Mapped[str] = mapped_column(String(127))
    text: Mapped[str] = mapped_column(PeoplesText)
    tokens: Mapped[int] = mapped_column(default=0)
    cut_tokens: Mapped[int] = mapped_column(default=0)
    size_bytes: Mapped[int] = mapped_column(default=0)
    created_at: Mapped[float] = mapped_column(default=now_s)


class ShareRow(TableBase):
    """A conversation that others may read: `audience` is {"users": [ids], "groups": [ids]}, by
    public ids.
    """

    __tablename__ = "shares"

    id: Mapped[int] = mapped_column(primary_key=True)
    public_id: Mapped[str] = mapped_column(String(32), default=new_id, unique=True)
    conversation_id: Mapped[int] = mapped_column(
        ForeignKey("conversations.id", ondelete="CASCADE"), index=True
    )
    audience: Mapped[dict[str, Any]] = mapped_column(default=dict)
    created_at: Mapped[float] = mapped_column(default=now_s)


class FeedbackRow(TableBase):
    """What a user thinks of an answer, with all that is needed to train on it: `prompt` are the
    exact messages that led to it. It outlives the message.
    """

    __tablename__ = "feedback"
    __table_args__ = (
        UniqueConstraint("message_id", "user_id"),
        Index("ix_feedback_status_created_at", "status", "created_at"),
    )

    id: Mapped[int] = mapped_column(primary_key=True)
    public_id: Mapped[str] = mapped_column(String(32), default=new_id, unique=True)
    message_id: Mapped[int | None] = mapped_column(ForeignKey("messages.id", ondelete="SET NULL"))
    user_id: Mapped[int] = mapped_column(ForeignKey("users.id", ondelete="CASCADE"), index=True)
    vote: Mapped[int] = mapped_column(default=0)
    comment: Mapped[str] = mapped_column(PeoplesText, default="")
    corrected: Mapped[str | None] = mapped_column(PeoplesText)
    prompt: Mapped[list[Any]] = mapped_column(default=list)
    answer: Mapped[str] = mapped_column(PeoplesText, default="")
    settings: Mapped[dict[str, Any]] = mapped_column(default=dict)
    model: Mapped[str | None] = mapped_column(String(255))
    checkpoint_hash: Mapped[str | None] = mapped_column(String(64))
    status: Mapped[str] = mapped_column(String(16), default="new")
    reviewed_by: Mapped[int | None] = mapped_column(ForeignKey("users.id", ondelete="SET NULL"))
    reviewed_at: Mapped[float | None]
    created_at: Mapped[float] = mapped_column(default=now_s)
