"""Feedback: what users think of answers, and what became of it in review."""

from __future__ import annotations

from typing import Any

from sqlalchemy import delete as delete_rows
from sqlalchemy import func, or_, select
from sqlalchemy.orm import Session

from nanochat.store.account_tables import UserRow
from nanochat.store.chat_tables import FeedbackRow, MessageRow
from nanochat.store.table_base import now_s

STATUSES = ("new", "accepted", "edited", "rejected")
DECISIONS = {"accept": "accepted", "edit": "edited", "reject": "rejected"}


def give(
    session: Session,
    *,
    message: MessageRow,
    user_id: int,
    prompt: list[Any],
    settings: dict[str, Any],
    vote: int,
    comment: str = "",
    corrected: str | None = None,
) -> FeedbackRow:
    """What a user thinks of an answer, with all that led to it; it replaces what the same user
    thought of it before, and is to be reviewed again.
    """
    row = session.scalar(
        select(FeedbackRow).where(
            FeedbackRow.message_id == message.id, FeedbackRow.user_id == user_id
        )
    )
    if row is None:
        row = FeedbackRow(message_id=message.id, user_id=user_id)
        session.add(row)
    row.vote = vote
    row.comment = comment
    row.corrected = corrected
    row.prompt = prompt
    row.answer = message.content
    row.settings = settings
    row.model = message.model
    row.checkpoint_hash = message.checkpoint_hash
    row.status = "new"
    row.reviewed_by = None
    row.reviewed_at = None
    row.created_at = now_s()
    session.flush()
    return row


def found(session: Session, public_id: str, user_id: int | None = None) -> FeedbackRow | None:
    """A feedback; only the user's own when one is given."""
    query = select(FeedbackRow).where(FeedbackRow.public_id == public_id)
    if user_id is not None:
        query = query.where(FeedbackRow.user_id == user_id)
    return session.scalar(query)


def queue(
    session: Session, status: str | None = "new", limit: int = 50, offset: int = 0
) -> list[tuple[FeedbackRow, str, bool]]:
    """(feedback, name of the user, whether they agreed to training), oldest first; of all states
    when `status` is None.
    """
    query = select(FeedbackRow, UserRow.name, agreed()).join(
        UserRow, UserRow.id == FeedbackRow.user_id
    )
    if status is not None:
        query = query.where(FeedbackRow.status == status)
    query = query.order_by(FeedbackRow.created_at, FeedbackRow.id).limit(limit).offset(offset)
    return [(row, name, bool(consents)) for row, name, consents in session.execute(query)]


def counts(session: Session) -> dict[str, int]:
    """How many there are in each state."""
    query = select(FeedbackRow.status, func.count()).group_by(FeedbackRow.status)
    found = {status: count for status, count in session.execute(query)}  # noqa: C416
    return dict.fromkeys(STATUSES, 0) | found


def review(
    session: Session, row: FeedbackRow, reviewer_id: int, decision: str, corrected: str | None
) -> None:
    """Decide about a feedback: accept, edit (with the answer as it should be) or reject.
    ValueError when that is not a decision.
    """
    if decision not in DECISIONS:
        raise ValueError(f"decision={decision}: must be {', '.join(DECISIONS)}")
    if decision == "edit":
        if corrected is None or not corrected.strip():
            raise ValueError("corrected: an edit needs the answer as it should be")
        row.corrected = corrected
    row.status = DECISIONS[decision]
    row.reviewed_by = reviewer_id
    row.reviewed_at = now_s()


def accepted(session: Session) -> list[tuple[FeedbackRow, bool]]:
    """(feedback, whether its user agreed to training) of all that was accepted, oldest first."""
    query = (
        select(FeedbackRow, agreed())
        .join(UserRow, UserRow.id == FeedbackRow.user_id)
        .where(FeedbackRow.status.in_(("accepted", "edited")))
        .order_by(FeedbackRow.created_at, FeedbackRow.id)
    )
    return [(row, bool(consents)) for row, consents in session.execute(query)]


def agreed() -> Any:
    """Whoever serves only themselves has agreed by exporting."""
    return or_(UserRow.consent_training.is_(True), UserRow.kind == "local")


def expire(session: Session, before: float) -> int:
    """Delete what was given before a time -> how many."""
    old = delete_rows(FeedbackRow).where(FeedbackRow.created_at < before)
    return session.execute(old).rowcount  # type: ignore[attr-defined]
