"""Usage: a row for each request, written before its answer begins and completed at its end.

Limits count these rows, so they hold for requests at the same time and over several servers on one
database.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, cast

from sqlalchemy import Table, bindparam, func, insert, literal_column, select, text, update
from sqlalchemy.orm import Session

from nanochat.store.account_tables import ApiKeyRow, UsageRow, UserRow
from nanochat.store.table_base import day_of, new_id, now_s

MINUTE_S = 60.0
# Put together once: every request runs both, and building them takes longer than they do.
TABLE = cast(Table, UsageRow.__table__)
ENDS = ("status", "prompt_tokens", "completion_tokens", "latency_s", "first_token_s")
BEGIN = insert(TABLE)
FINISH = (
    update(TABLE)
    .where(TABLE.c.public_id == bindparam("which"))
    .values({name: bindparam(f"new_{name}") for name in ENDS})
)
LIMITS_LOCK = 0x6C696D  # of PostgreSQL's advisory locks: one server decides at a time


class OverLimit(Exception):
    """A limit is reached; `retry_after_s`: when it may be tried again."""

    def __init__(self, reason: str, retry_after_s: float) -> None:
        super().__init__(reason)
        self.reason = reason
        self.retry_after_s = retry_after_s


@dataclass(frozen=True, kw_only=True)
class UsageLimits:
    """Limits of a user, or of one key; None: no limit."""

    tokens_per_day: int | None = None
    requests_per_minute: int | None = None

    def __bool__(self) -> bool:
        return self.tokens_per_day is not None or self.requests_per_minute is not None


NO_LIMITS = UsageLimits()


@dataclass(frozen=True, kw_only=True)
class UsageStart:
    """What a row is begun with. `most_tokens`: the longest answer that may come of it."""

    user_id: int
    api_key_id: int | None = None
    model: str
    checkpoint_hash: str | None = None
    prompt_tokens: int
    most_tokens: int
    server: str
    public_id: str = field(default_factory=new_id)
    user_limits: UsageLimits = NO_LIMITS
    key_limits: UsageLimits = NO_LIMITS


@dataclass(frozen=True, kw_only=True)
class UsageEnd:
    """What a row is completed with. `status`: complete, cancelled, failed, refused."""

    status: str
    completion_tokens: int = 0
    prompt_tokens: int = 0
    latency_s: float | None = None
    first_token_s: float | None = None


def begin(session: Session, start: UsageStart) -> str:
    """Check the limits and write the row -> its id. OverLimit when one is reached; at the same
    time everywhere only one of two requests gets what is left for one.
    """
    if (start.user_limits or start.key_limits) and session.get_bind().dialect.name == "postgresql":
        session.execute(text("SELECT pg_advisory_xact_lock(:key)"), {"key": LIMITS_LOCK})
    now = now_s()
    asked = start.prompt_tokens + start.most_tokens
    check(session, UsageRow.user_id == start.user_id, start.user_limits, asked, now, "your account")
    if start.api_key_id is not None:
        mine = UsageRow.api_key_id == start.api_key_id
        check(session, mine, start.key_limits, asked, now, "this API key")
    values = {
        "public_id": start.public_id,
        "user_id": start.user_id,
        "api_key_id": start.api_key_id,
        "day": day_of(now),
        "created_at": now,
        "model": start.model,
        "checkpoint_hash": start.checkpoint_hash,
        "prompt_tokens": start.prompt_tokens,
        "completion_tokens": start.most_tokens,
        "status": "running",
        "server": start.server,
    }
    session.connection().execute(BEGIN, values)
    return start.public_id


def check(
    session: Session, mine: Any, limits: UsageLimits, asked: int, now: float, who: str
) -> None:
    """OverLimit when `asked` more tokens, or one more request, would be too much."""
    most = limits.tokens_per_day
    if most is not None:
        used = used_on(session, mine, day_of(now))
        if used + asked > most:
            raise OverLimit(
                f"{who} may use {most} tokens a day: {used} are used or being used, this request "
                f"may take {asked}; lower max_tokens, or come back tomorrow (UTC)",
                seconds_to_midnight(now),
            )
    most = limits.requests_per_minute
    if most is not None:
        recent = select(UsageRow.created_at).where(mine, UsageRow.created_at > now - MINUTE_S)
        times = sorted(session.scalars(recent))
        if len(times) >= most:
            wait_s = times[len(times) - most] + MINUTE_S - now if most else MINUTE_S
            reason = f"{who} may send {most} requests a minute; come back in {wait_s:.0f} s"
            raise OverLimit(reason, wait_s)


def used_on(session: Session, mine: Any, day: str) -> int:
    """Tokens of one day, those of requests that are being answered counted in full."""
    total = func.sum(UsageRow.prompt_tokens + UsageRow.completion_tokens)
    return int(session.scalar(select(total).where(mine, UsageRow.day == day)) or 0)


def used_today(session: Session, user_id: int) -> int:
    return used_on(session, UsageRow.user_id == user_id, day_of(now_s()))


def finish(session: Session, public_id: str, end: UsageEnd) -> None:
    """Complete a row that was begun."""
    values = {f"new_{name}": getattr(end, name) for name in ENDS}
    session.connection().execute(FINISH, {"which": public_id, **values})


# --- what was used, for people

GROUPINGS = ("user", "key", "model", "day")


@dataclass(frozen=True, kw_only=True)
class UsageTotal:
    """Requests of one user, key, model or day. Times are means, in seconds."""

    name: str
    requests: int
    prompt_tokens: int
    completion_tokens: int
    latency_s: float | None
    first_token_s: float | None

    @property
    def tokens(self) -> int:
        return self.prompt_tokens + self.completion_tokens


def totals(
    session: Session, since: float, by: str = "user", user_id: int | None = None
) -> list[UsageTotal]:
    """Sums of everything since a time, the most used first (days in order). Only one user's when
    `user_id` is given.
    """
    label: Any = {
        "user": func.coalesce(UserRow.name, literal_column("'(deleted)'")),
        "key": func.coalesce(ApiKeyRow.name, literal_column("'(page)'")),
        "model": UsageRow.model,
        "day": UsageRow.day,
    }[by]
    tokens = func.sum(UsageRow.prompt_tokens + UsageRow.completion_tokens)
    query = (
        select(
            label.label("name"),
            func.count(),
            func.sum(UsageRow.prompt_tokens),
            func.sum(UsageRow.completion_tokens),
            func.avg(UsageRow.latency_s),
            func.avg(UsageRow.first_token_s),
        )
        .outerjoin(UserRow, UserRow.id == UsageRow.user_id)
        .outerjoin(ApiKeyRow, ApiKeyRow.id == UsageRow.api_key_id)
        .where(UsageRow.created_at >= since, UsageRow.status != "refused")
        .group_by(label)
        .order_by(label if by == "day" else tokens.desc())
    )
    if user_id is not None:
        query = query.where(UsageRow.user_id == user_id)
    return [
        UsageTotal(
            name=row[0],
            requests=row[1],
            prompt_tokens=int(row[2]),
            completion_tokens=int(row[3]),
            latency_s=row[4],
            first_token_s=row[5],
        )
        for row in session.execute(query)
    ]


def first_since(session: Session, since: float) -> float | None:
    """When the first request since a time came; None when there was none."""
    return session.scalar(select(func.min(UsageRow.created_at)).where(UsageRow.created_at >= since))


def machine_cost(rows: Sequence[UsageTotal], *, hours: float, hourly_rate: float) -> list[float]:
    """What each row's share of the machine's hours cost: shares are by tokens, since a rented
    machine costs the same whether it is busy or not.
    """
    tokens = sum(row.tokens for row in rows)
    return [hours * hourly_rate * row.tokens / tokens if tokens else 0.0 for row in rows]


def seconds_to_midnight(now: float) -> float:
    """Until the next UTC day."""
    return 86_400 - now % 86_400
