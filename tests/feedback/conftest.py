"""A database with users, a conversation and answers that feedback can be about."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import pytest

from nanochat.store import feedback_rows as feedback
from nanochat.store import users
from nanochat.store.chat_tables import ConversationRow, MessageRow
from nanochat.store.database import Database
from nanochat.store.upgrading import upgrade


@dataclass
class Given:
    """A database and its address, and a short way to give feedback in it."""

    url: str
    database: Database

    def __call__(
        self,
        question: str,
        answer: str,
        corrected: str | None = None,
        *,
        user: str = "ada",
        vote: int = -1,
        decision: str | None = "accept",
        consent: bool = True,
        before: list[Any] | None = None,
        age_s: float = 0.0,
    ) -> str:
        """The id of a feedback about one answer, reviewed unless `decision` is None."""
        with self.database.write() as session:
            who = users.named(session, user) or users.add(session, user)
            who.consent_training = consent
            talk = ConversationRow(user_id=who.id)
            session.add(talk)
            session.flush()
            message = MessageRow(
                conversation_id=talk.id,
                role="assistant",
                content=answer,
                model="sft:d2",
                checkpoint_hash="abc",
            )
            session.add(message)
            session.flush()
            prompt = [*(before or []), {"role": "user", "content": question}]
            row = feedback.give(
                session,
                message=message,
                user_id=who.id,
                prompt=prompt,
                settings={"temperature": 0.0},
                vote=vote,
                corrected=corrected,
            )
            if decision is not None:
                feedback.review(session, row, who.id, decision, corrected)
            row.created_at -= age_s
            return row.public_id


@pytest.fixture
def given(database_url: Callable[[], str]) -> Iterator[Given]:
    url = database_url()
    database = Database(url)
    upgrade(database)
    yield Given(url, database)
    database.close()
