"""Browsers that are signed in. The token is in the browser's cookie, here is only its hash."""

from __future__ import annotations

import hashlib
import secrets

from sqlalchemy import delete, or_, select
from sqlalchemy.orm import Session

from nanochat.store.account_tables import UserRow, WebSessionRow
from nanochat.store.table_base import now_s

LIFETIME_S = 30 * 86_400.0
IDLE_S = 7 * 86_400.0  # not seen for so long: over
SEEN_EVERY_S = 300.0  # how exactly `last_seen` is kept


def start(session: Session, user_id: int) -> str:
    """A new session -> its token, which nothing but the cookie will know. Forgets what is over."""
    token = secrets.token_urlsafe(32)
    now = now_s()
    over = or_(WebSessionRow.expires_at <= now, WebSessionRow.last_seen <= now - IDLE_S)
    session.execute(delete(WebSessionRow).where(over))
    session.add(
        WebSessionRow(
            token_hash=token_hash(token),
            user_id=user_id,
            csrf=secrets.token_urlsafe(32),
            expires_at=now + LIFETIME_S,
        )
    )
    return token


def find(session: Session, token: str) -> tuple[WebSessionRow, UserRow] | None:
    """The session of a token and whose it is; None when it is over or the user disabled."""
    now = now_s()
    found = session.execute(
        select(WebSessionRow, UserRow)
        .join(UserRow, UserRow.id == WebSessionRow.user_id)
        .where(
            WebSessionRow.token_hash == token_hash(token),
            WebSessionRow.expires_at > now,
            WebSessionRow.last_seen > now - IDLE_S,
            UserRow.disabled.is_(False),
        )
    ).first()
    return None if found is None else (found[0], found[1])


def seen(session: Session, session_id: int) -> None:
    """The session is in use."""
    row = session.get(WebSessionRow, session_id)
    if row is not None:
        row.last_seen = now_s()


def end(session: Session, token: str) -> None:
    """Sign out; nothing happens to a token that is not known."""
    session.execute(delete(WebSessionRow).where(WebSessionRow.token_hash == token_hash(token)))


def token_hash(token: str) -> str:
    """Fit for tokens of 32 random bytes; passwords need `passwords.py`."""
    return hashlib.sha256(token.encode("utf-8", "replace")).hexdigest()
