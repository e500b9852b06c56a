"""Keys of users for programs: shown once, kept as a hash, named, expiring, revocable."""

from __future__ import annotations

import secrets
from typing import Any

from sqlalchemy import bindparam, or_, select
from sqlalchemy.orm import Session

from nanochat.store.account_tables import ApiKeyRow, UserRow
from nanochat.store.table_base import now_s
from nanochat.store.users import MOST_PER_DAY
from nanochat.store.web_sessions import token_hash

BEGINNING = "nc-"
PREFIX_LENGTH = 10
MOST_KEYS = 100  # of one user
MOST_DAYS = 3650


def usable(now: Any) -> Any:
    """The condition that a key works at a time."""
    unexpired = or_(ApiKeyRow.expires_at.is_(None), ApiKeyRow.expires_at > now)
    return unexpired & ApiKeyRow.revoked_at.is_(None)


# put together once: every request with a key runs it
FIND = (
    select(ApiKeyRow, UserRow)
    .join(UserRow, UserRow.id == ApiKeyRow.user_id)
    .where(
        ApiKeyRow.key_hash == bindparam("digest"),
        usable(bindparam("now")),
        UserRow.disabled.is_(False),
    )
)


def make(
    session: Session,
    user_id: int,
    name: str,
    *,
    days: int | None = None,
    tokens_per_day: int | None = None,
    requests_per_minute: int | None = None,
) -> tuple[ApiKeyRow, str]:
    """(row, key): the key is not kept, so this is the only time that it can be shown. `days` until
    it expires. ValueError for a name or number that does not fit.
    """
    name = name.strip()
    if not 1 <= len(name) <= 64 or not name.isprintable():
        raise ValueError(f"name={name[:80]!r}: must be 1 to 64 characters")
    if days is not None and not 1 <= days <= MOST_DAYS:
        raise ValueError(f"days={days}: must be from 1 to {MOST_DAYS}")
    for limit in (tokens_per_day, requests_per_minute):
        if limit is not None and not 0 <= limit <= MOST_PER_DAY:
            raise ValueError(f"{limit}: a limit must be from 0 to {MOST_PER_DAY}")
    if len(valid(session, user_id)) >= MOST_KEYS:
        raise ValueError(f"there are {MOST_KEYS} keys already; revoke one first")
    key = BEGINNING + secrets.token_urlsafe(32)
    row = ApiKeyRow(
        user_id=user_id,
        name=name,
        prefix=key[:PREFIX_LENGTH],
        key_hash=token_hash(key),
        expires_at=None if days is None else now_s() + 86_400 * days,
        tokens_per_day=tokens_per_day,
        requests_per_minute=requests_per_minute,
    )
    session.add(row)
    session.flush()
    return row, key


def find(session: Session, key: str) -> tuple[ApiKeyRow, UserRow] | None:
    """The key's row and whose it is; None for one that is unknown, revoked or expired, and when the
    user is disabled.
    """
    found = session.execute(FIND, {"digest": token_hash(key), "now": now_s()}).first()
    return None if found is None else (found[0], found[1])


def valid(session: Session, user_id: int) -> list[ApiKeyRow]:
    """The keys of a user that work, newest first."""
    mine = select(ApiKeyRow).where(ApiKeyRow.user_id == user_id, usable(now_s()))
    return list(session.scalars(mine.order_by(ApiKeyRow.id.desc())))


def revoke(session: Session, user_id: int, public_id: str) -> bool:
    """Whether the user had such a key that worked; it does no longer."""
    row = session.scalar(
        select(ApiKeyRow).where(
            ApiKeyRow.user_id == user_id,
            ApiKeyRow.public_id == public_id,
            ApiKeyRow.revoked_at.is_(None),
        )
    )
    if row is not None:
        row.revoked_at = now_s()
    return row is not None


def used(session: Session, api_key_id: int) -> None:
    """Note when the key was last used."""
    row = session.get(ApiKeyRow, api_key_id)
    if row is not None:
        row.last_used_at = now_s()
