"""Users, passwords, sessions and keys."""

from __future__ import annotations

import pytest

from nanochat.store import api_keys, users, web_sessions
from nanochat.store.account_tables import (
    ApiKeyRow,
    GroupRow,
    MembershipRow,
    ModelRightRow,
    UsageRow,
    WebSessionRow,
)
from nanochat.store.chat_tables import ConversationRow, MessageRow
from nanochat.store.database import Database
from nanochat.store.passwords import hash_password, password_fits


@pytest.mark.parametrize(
    "name", ["", " ", "a b", "<b>", "a" * 65, "a/b", "a\n", "a\0", "../a", "'"]
)
def test_names_that_are_none(database: Database, name: str):
    with database.write() as session, pytest.raises(ValueError, match="name"):
        users.add(session, name)


def test_names_are_the_same_however_written(database: Database):
    with database.write() as session:
        users.add(session, "\uff21nna.K\u00fchn@example.org")
        assert users.named(session, "anna.k\u00dchn@EXAMPLE.org") is not None
        with pytest.raises(ValueError, match="there is such a user"):
            users.add(session, "Anna.k\u00fchn@example.org")


def test_passwords():
    kept = hash_password("correct horse battery")
    assert kept.startswith("$argon2id$")
    assert "correct" not in kept
    assert password_fits("correct horse battery", kept)
    assert not password_fits("correct horse batterz", kept)
    assert not password_fits("", None)
    assert not password_fits("anything", None)
    assert not password_fits("anything", "no hash at all")
    assert password_fits("p\u00e4ssw\u00f6rd-lang", hash_password("pa\u0308sswo\u0308rd-lang"))


@pytest.mark.parametrize("password", ["", "short", "aaaaaaaaaaaa", "x" * 2000])
def test_passwords_that_are_too_easy(password: str):
    with pytest.raises(ValueError, match="password"):
        hash_password(password)


def test_the_last_admin_stays(database: Database):
    with database.write() as session:
        anna = users.add(session, "anna", role="admin")
        users.local_user(session)  # is an admin, but none who signs in
        for change in (
            lambda: users.set_role(session, anna, "user"),
            lambda: users.set_disabled(session, anna, True),
            lambda: users.delete(session, anna),
        ):
            with pytest.raises(ValueError, match="last admin"):
                change()
        berta = users.add(session, "berta", role="admin")
        users.set_disabled(session, anna, True)
        with pytest.raises(ValueError, match="last admin"):
            users.set_role(session, berta, "user")
        with pytest.raises(ValueError, match="role=root"):
            users.set_role(session, berta, "root")


def test_accounts_are_those_that_sign_in(database: Database):
    with database.write() as session:
        users.local_user(session)
        users.key_user(session, "k" * 20)
        assert not users.any_accounts(session)
        assert users.local_user(session).id == users.local_user(session).id
        anna = users.add(session, "anna")
        users.set_disabled(session, anna, True)
        assert users.any_accounts(session)  # else disabling the last opened the server


def test_sessions(database: Database):
    with database.write() as session:
        anna = users.add(session, "anna")
        token = web_sessions.start(session, anna.id)
        other = web_sessions.start(session, anna.id)
        assert token != other
    with database.write() as session:
        found = web_sessions.find(session, token)
        assert found is not None
        row, user = found
        assert user.name == "anna"
        assert token not in (row.token_hash, row.csrf)
        for unknown in ("", "x", row.token_hash, token + "x", "\ud800"):
            assert web_sessions.find(session, unknown) is None
        web_sessions.end(session, token)
        assert web_sessions.find(session, token) is None
        assert web_sessions.find(session, other) is not None
        users.set_password(session, anna, "x")
        assert web_sessions.find(session, other) is None


@pytest.mark.parametrize("change", ["expires_at", "last_seen", "disabled", "role"])
def test_sessions_end(database: Database, change: str):
    with database.write() as session:
        anna = users.add(session, "anna")
        token = web_sessions.start(session, anna.id)
        found = web_sessions.find(session, token)
        assert found is not None
        row = found[0]
        if change == "expires_at":
            row.expires_at = row.created_at - 1
        elif change == "last_seen":
            row.last_seen = row.created_at - web_sessions.IDLE_S - 1
        elif change == "disabled":
            users.set_disabled(session, anna, True)
        else:
            users.set_role(session, anna, "admin")
    with database.write() as session:
        assert web_sessions.find(session, token) is None
        web_sessions.start(session, anna.id)  # clears away what is over
        assert session.query(WebSessionRow).count() == 1


def test_keys(database: Database):
    with database.write() as session:
        anna, berta = users.add(session, "anna"), users.add(session, "berta")
        row, key = api_keys.make(session, anna.id, "laptop", days=7, tokens_per_day=5)
        assert key.startswith(row.prefix)
        assert key not in (row.key_hash, row.prefix)
        assert [valid.name for valid in api_keys.valid(session, anna.id)] == ["laptop"]
    with database.write() as session:
        found = api_keys.find(session, key)
        assert found is not None
        assert (found[0].tokens_per_day, found[1].name) == (5, "anna")
        assert not api_keys.revoke(session, berta.id, row.public_id)  # not hers
        assert api_keys.find(session, key) is not None
        assert api_keys.revoke(session, anna.id, row.public_id)
        assert not api_keys.revoke(session, anna.id, row.public_id)
        assert api_keys.find(session, key) is None
        assert api_keys.valid(session, anna.id) == []


def test_keys_end(database: Database):
    with database.write() as session:
        anna = users.add(session, "anna")
        row, key = api_keys.make(session, anna.id, "a", days=1)
        row.expires_at = row.created_at - 1
        assert api_keys.find(session, key) is None
        _, key = api_keys.make(session, anna.id, "b")
        users.set_disabled(session, anna, True)
        session.flush()
        assert api_keys.find(session, key) is None


@pytest.mark.parametrize(
    "wrong",
    [
        {"name": ""},
        {"name": "a\nb"},
        {"name": "x" * 65},
        {"days": 0},
        {"days": 10**9},
        {"tokens_per_day": -1},
        {"requests_per_minute": 2**31},
    ],
)
def test_keys_that_are_none(database: Database, wrong: dict):
    with database.write() as session:
        anna = users.add(session, "anna")
        with pytest.raises(ValueError):
            api_keys.make(session, anna.id, **{"name": "a", **wrong})


def test_a_user_is_deleted_with_all_that_is_theirs(database: Database):
    with database.write() as session:
        anna, berta = users.add(session, "anna"), users.add(session, "berta")
        for user in (anna, berta):
            web_sessions.start(session, user.id)
            api_keys.make(session, user.id, "key")
            conversation = ConversationRow(user_id=user.id, title="x")
            session.add(conversation)
            session.flush()
            session.add(MessageRow(conversation_id=conversation.id, role="user", content="x"))
            session.add(UsageRow(user_id=user.id, day="2026-01-01", model="m", prompt_tokens=5))
        session.flush()
        users.delete(session, anna)
    with database.read() as session:
        for table in (WebSessionRow, ApiKeyRow, ConversationRow, MessageRow):
            assert session.query(table).count() == 1, table
        assert sorted(str(row.user_id) for row in session.query(UsageRow)) == sorted(
            ["None", str(berta.id)]
        )


def test_groups_decide_who_may_use_a_model(database: Database):
    with database.write() as session:
        anna, berta = users.add(session, "anna"), users.add(session, "berta")
        group = users.add_group(session, "team")
        with pytest.raises(ValueError, match="such a group"):
            users.add_group(session, "Team")
        session.add(MembershipRow(group_id=group.id, user_id=anna.id))
        session.add(ModelRightRow(group_id=group.id, model="sft:d2"))
        session.flush()
        assert users.may_use(session, anna.id, "sft:d2")
        assert not users.may_use(session, berta.id, "sft:d2")
        assert users.may_use(session, berta.id, "base:d2")
        assert [g.name for g in users.groups_of(session, anna.id)] == ["team"]
        assert session.query(GroupRow).count() == 1
