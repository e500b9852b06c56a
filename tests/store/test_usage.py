"""Limits that hold for requests at the same time, and what was used."""

from __future__ import annotations

import threading
import time

import pytest

from nanochat.store import api_keys, chats, usage, users
from nanochat.store.account_tables import UsageRow
from nanochat.store.chat_tables import MessageRow
from nanochat.store.database import Database
from nanochat.store.left_behind import mark_cut
from nanochat.store.usage import OverLimit, UsageEnd, UsageLimits, UsageStart


def start(user_id: int, **more) -> UsageStart:
    given = {"model": "m", "prompt_tokens": 10, "most_tokens": 90, "server": "here", **more}
    return UsageStart(user_id=user_id, **given)


@pytest.fixture
def anna(database: Database) -> int:
    with database.write() as session:
        return users.add(session, "anna").id


@pytest.mark.parametrize(
    "limits", [UsageLimits(tokens_per_day=1000), UsageLimits(requests_per_minute=10)]
)
def test_fifty_at_once_get_what_is_left_and_no_more(
    database: Database, anna: int, limits: UsageLimits
):
    passed, refused = [], []

    def ask() -> None:
        try:
            passed.append(database.writing(usage.begin, start(anna, user_limits=limits)))
        except OverLimit as error:
            refused.append(error)

    threads = [threading.Thread(target=ask) for _ in range(50)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert (len(passed), len(refused)) == (10, 40)
    assert all(0 < error.retry_after_s <= 86_400 for error in refused)


def test_what_was_not_needed_is_given_back(database: Database, anna: int):
    limits = UsageLimits(tokens_per_day=150)
    first = database.writing(usage.begin, start(anna, user_limits=limits))
    with pytest.raises(OverLimit, match="100 are used or being used"):
        database.writing(usage.begin, start(anna, user_limits=limits))
    database.writing(
        usage.finish, first, UsageEnd(status="complete", prompt_tokens=10, completion_tokens=5)
    )
    assert database.reading(usage.used_today, anna) == 15
    database.writing(usage.begin, start(anna, user_limits=limits))


def test_a_key_has_limits_of_its_own(database: Database, anna: int):
    with database.write() as session:
        key = api_keys.make(session, anna, "a")[0].id
    tight = start(anna, api_key_id=key, key_limits=UsageLimits(requests_per_minute=1))
    database.writing(usage.begin, start(anna))
    database.writing(usage.begin, tight)
    with pytest.raises(OverLimit, match="this API key"):
        database.writing(usage.begin, tight)
    database.writing(usage.begin, start(anna))


def test_zero_allows_nothing(database: Database, anna: int):
    for limits in (UsageLimits(tokens_per_day=0), UsageLimits(requests_per_minute=0)):
        with pytest.raises(OverLimit):
            database.writing(usage.begin, start(anna, user_limits=limits))


def test_limits_look_at_one_day_and_one_minute(database: Database, anna: int):
    limits = UsageLimits(tokens_per_day=100, requests_per_minute=1)
    number = database.writing(usage.begin, start(anna, user_limits=limits))
    with database.write() as session:
        row = session.query(UsageRow).filter(UsageRow.public_id == number).one()
        row.day = "2026-01-01"
        row.created_at -= 61
    database.writing(usage.begin, start(anna, user_limits=limits))


def test_what_a_killed_server_left_behind_is_cut(database: Database, anna: int):
    mine = database.writing(usage.begin, start(anna))
    others = database.writing(usage.begin, start(anna, server="there"))
    done = database.writing(usage.begin, start(anna))
    database.writing(usage.finish, done, UsageEnd(status="complete"))
    with database.write() as session:
        conversation = chats.add(session, anna, title="x")
        for server in ("here", "there"):
            row = MessageRow(conversation_id=conversation.id, role="assistant", content="so far")
            row.status, row.server = "streaming", server
            session.add(row)
    assert database.writing(mark_cut, "here", 600.0) == 2
    with database.read() as session:
        rows = session.query(MessageRow).order_by(MessageRow.id)
        assert [(r.status, r.content) for r in rows] == [("cut", "so far"), ("streaming", "so far")]
    with database.read() as session:
        status = {row.public_id: row.status for row in session.query(UsageRow)}
    assert status == {mine: "cut", others: "running", done: "complete"}


def test_totals_and_cost(database: Database, anna: int):
    with database.write() as session:
        berta = users.add(session, "berta").id
        key = api_keys.make(session, berta, "laptop")[0].id
        now = time.time()
        for user, api_key, model, tokens, day in (
            (anna, None, "m", 100, 0),
            (anna, None, "n", 200, 1),
            (berta, key, "m", 300, 1),
            (berta, key, "m", 5000, 30),
        ):
            at = now - 86_400 * day
            session.add(
                UsageRow(
                    user_id=user,
                    api_key_id=api_key,
                    model=model,
                    prompt_tokens=tokens - 10,
                    completion_tokens=10,
                    created_at=at,
                    day=time.strftime("%Y-%m-%d", time.gmtime(at)),
                    latency_s=2.0,
                    status="complete",
                )
            )
    since = now - 7 * 86_400
    with database.read() as session:
        rows = usage.totals(session, since)
        assert [(row.name, row.requests, row.tokens) for row in rows] in (
            [("anna", 2, 300), ("berta", 1, 300)],
            [("berta", 1, 300), ("anna", 2, 300)],
        )
        assert [row.latency_s for row in rows] == [2.0, 2.0]
        keys = usage.totals(session, since, "key")
        assert sorted(row.name for row in keys) == ["(page)", "laptop"]
        assert [row.tokens for row in usage.totals(session, since, "model")] == [400, 200]
        assert [row.tokens for row in usage.totals(session, since, "day")] == [500, 100]
        assert [row.tokens for row in usage.totals(session, since, user_id=anna)] == [300]
        first = usage.first_since(session, since)
        assert first is not None
        assert abs(first - (now - 86_400)) < 1
        assert usage.machine_cost(rows, hours=10, hourly_rate=3.0) == [15.0, 15.0]
        assert usage.totals(session, now + 5) == []
    assert usage.machine_cost([], hours=10, hourly_rate=3.0) == []
