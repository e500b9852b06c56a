"""Tables of who may ask and what was asked for: users, groups, sessions, keys, usage.

`id` is for joins and never leaves the server; `public_id` is what addresses and answers show. Times
are seconds since 1970, UTC.
"""

from __future__ import annotations

from typing import Any

from sqlalchemy import ForeignKey, Index, String
from sqlalchemy.orm import Mapped, mapped_column

from nanochat.store.table_base import PeoplesText, TableBase, new_id, now_s


class UserRow(TableBase):
    """A person or program. `kind`: "account" signs in, "local" is the one user of a server without
    accounts, "key" stands for a key of --api-key-file. Limits that are None do not apply.
    """

    __tablename__ = "users"

    id: Mapped[int] = mapped_column(primary_key=True)
    public_id: Mapped[str] = mapped_column(String(32), default=new_id, unique=True)
    kind: Mapped[str] = mapped_column(String(16), default="account", index=True)
    name: Mapped[str] = mapped_column(PeoplesText, unique=True)
    role: Mapped[str] = mapped_column(String(16), default="user")
    password_hash: Mapped[str | None] = mapped_column(String(255))
    oidc_subject: Mapped[str | None] = mapped_column(String(512), unique=True)
    disabled: Mapped[bool] = mapped_column(default=False)
    created_at: Mapped[float] = mapped_column(default=now_s)
    tokens_per_day: Mapped[int | None]
    requests_per_minute: Mapped[int | None]
    consent_training: Mapped[bool] = mapped_column(default=False)
    settings: Mapped[dict[str, Any]] = mapped_column(default=dict)


class GroupRow(TableBase):
    """Users who may use the same models and be shared with at once."""

    __tablename__ = "groups"

    id: Mapped[int] = mapped_column(primary_key=True)
    public_id: Mapped[str] = mapped_column(String(32), default=new_id, unique=True)
    name: Mapped[str] = mapped_column(PeoplesText, unique=True)


class MembershipRow(TableBase):
    """A user in a group."""

    __tablename__ = "memberships"

    group_id: Mapped[int] = mapped_column(
        ForeignKey("groups.id", ondelete="CASCADE"), primary_key=True
    )
    user_id: Mapped[int] = mapped_column(
        ForeignKey("users.id", ondelete="CASCADE"), primary_key=True, index=True
    )


class ModelRightRow(TableBase):
    """A group that may use a model. Everybody may use a model that has no such rows."""

    __tablename__ = "model_rights"

    group_id: Mapped[int] = mapped_column(
        ForeignKey("groups.id", ondelete="CASCADE"), primary_key=True
    )
    model: Mapped[str] = mapped_column(String(255), primary_key=True, index=True)


class WebSessionRow(TableBase):
    """A browser that is signed in. The token itself is only in its cookie."""

    __tablename__ = "web_sessions"

    id: Mapped[int] = mapped_column(primary_key=True)
    token_hash: Mapped[str] = mapped_column(String(64), unique=True)
    user_id: Mapped[int] = mapped_column(ForeignKey("users.id", ondelete="CASCADE"), index=True)
    csrf: Mapped[str] = mapped_column(String(64))
    created_at: Mapped[float] = mapped_column(default=now_s)
    expires_at: Mapped[float]
    last_seen: Mapped[float] = mapped_column(default=now_s)


class ApiKeyRow(TableBase):
    """A key of a user for programs. Only its beginning, `prefix`, is kept in the clear."""

    __tablename__ = "api_keys"

    id: Mapped[int] = mapped_column(primary_key=True)
    public_id: Mapped[str] = mapped_column(String(32), default=new_id, unique=True)
    user_id: Mapped[int] = mapped_column(ForeignKey("users.id", ondelete="CASCADE"), index=True)
    name: Mapped[str] = mapped_column(PeoplesText)
    prefix: Mapped[str] = mapped_column(String(16))
    key_hash: Mapped[str] = mapped_column(String(64), unique=True)
    created_at: Mapped[float] = mapped_column(default=now_s)
    expires_at: Mapped[float | None]
    revoked_at: Mapped[float | None]
    last_used_at: Mapped[float | None]
    tokens_per_day: Mapped[int | None]
    requests_per_minute: Mapped[int | None]


class UsageRow(TableBase):
    """One answered request. While `status` is "running" the tokens are what it may take at most, so
    that quotas hold for requests at the same time; `server` is who answers it.
    """

    __tablename__ = "usage"
    __table_args__ = (
        Index("ix_usage_user_id_day", "user_id", "day"),
        Index("ix_usage_user_id_created_at", "user_id", "created_at"),
        Index("ix_usage_api_key_id_created_at", "api_key_id", "created_at"),
    )

    id: Mapped[int] = mapped_column(primary_key=True)
    public_id: Mapped[str] = mapped_column(String(32), default=new_id, unique=True)
    user_id: Mapped[int | None] = mapped_column(ForeignKey("users.id", ondelete="SET NULL"))
    api_key_id: Mapped[int | None] = mapped_column(ForeignKey("api_keys.id", ondelete="SET NULL"))
    day: Mapped[str] = mapped_column(String(10), index=True)
    created_at: Mapped[float] = mapped_column(default=now_s, index=True)
    model: Mapped[str] = mapped_column(String(255))
    checkpoint_hash: Mapped[str | None] = mapped_column(String(64))
    prompt_tokens: Mapped[int] = mapped_column(default=0)
    completion_tokens: Mapped[int] = mapped_column(default=0)
    latency_s: Mapped[float | None]
    first_token_s: Mapped[float | None]
    status: Mapped[str] = mapped_column(String(16), default="running", index=True)
    server: Mapped[str | None] = mapped_column(String(255))
