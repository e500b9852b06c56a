"""Feedback in the database: given, given anew, reviewed, deleted with its user."""

from __future__ import annotations

import pytest

from nanochat.store import feedback_rows as feedback
from nanochat.store import users
from nanochat.store.chat_tables import ConversationRow, MessageRow


def test_everything_that_training_needs_is_kept_with_it(given):
    before = [{"role": "system", "content": "s"}]
    number = given("q", "a", "c", decision=None, before=before)
    with given.database.read() as session:
        row = feedback.found(session, number)
        assert row.prompt == [*before, {"role": "user", "content": "q"}]
        assert (row.answer, row.corrected, row.vote, row.status) == ("a", "c", -1, "new")
        assert (row.model, row.checkpoint_hash) == ("sft:d2", "abc")
        assert row.settings == {"temperature": 0.0}
    with given.database.write() as session:  # it outlives the conversation
        session.delete(session.query(ConversationRow).one())
    with given.database.read() as session:
        assert feedback.found(session, number).message_id is None


def test_another_thought_replaces_the_first_and_is_reviewed_again(given):
    number = given("q", "a", "c")
    with given.database.write() as session:
        row = feedback.found(session, number)
        message = session.get(MessageRow, row.message_id)
        again = feedback.give(
            session,
            message=message,
            user_id=row.user_id,
            prompt=row.prompt,
            settings=row.settings,
            vote=1,
        )
        assert again.public_id == number and again.status == "new" and again.corrected is None
        assert feedback.counts(session) == {"new": 1, "accepted": 0, "edited": 0, "rejected": 0}


def test_a_review_decides_and_refuses_what_is_no_decision(given):
    numbers = [given(f"q{i}", "a", "c", decision=None) for i in range(3)]
    with given.database.write() as session:
        queue = feedback.queue(session)
        assert [row.public_id for row, _, _ in queue] == numbers and queue[0][1] == "ada"
        rows = [row for row, _, _ in queue]
        for decision, corrected in (("maybe", "x"), ("edit", None), ("edit", " ")):
            with pytest.raises(ValueError):
                feedback.review(session, rows[0], rows[0].user_id, decision, corrected)
        for row, decision in zip(rows, feedback.DECISIONS, strict=True):
            feedback.review(session, row, row.user_id, decision, "better")
        assert [row.status for row in rows] == ["accepted", "edited", "rejected"]
        assert [row.corrected for row in rows] == ["c", "better", "c"]
        assert len(feedback.accepted(session)) == 2 and not feedback.queue(session)
        assert len(feedback.queue(session, status=None, limit=2, offset=1)) == 2


def test_who_is_deleted_takes_their_feedback_along(given):
    mine, other = given("q", "a", "c"), given("q", "a", "c", user="bob")
    with given.database.write() as session:
        assert feedback.found(session, mine, users.named(session, "bob").id) is None
        users.delete(session, users.named(session, "ada"))
        session.flush()
        session.expire_all()
        assert feedback.found(session, mine) is None and feedback.found(session, other)
        assert session.query(ConversationRow).count() == 1


def test_what_is_old_goes(given):
    given("q", "a", "c", age_s=100)
    young = given("q", "a", "c")
    with given.database.write() as session:
        row = feedback.found(session, young)
        assert feedback.expire(session, row.created_at - 50) == 1
        assert feedback.expire(session, row.created_at - 50) == 0
        assert [row.public_id for row, _ in feedback.accepted(session)] == [young]
