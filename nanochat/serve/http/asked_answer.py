"""The answer to a question of a stored conversation: streamed to the page and written down."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from concurrent.futures import Future
from typing import Any

from sqlalchemy import exists, select, update
from sqlalchemy.orm import Session

from nanochat.serve.api_error import ApiError
from nanochat.serve.http.answer import Answer
from nanochat.serve.http.chat_view import message_fields
from nanochat.serve.http.event_stream import sse
from nanochat.serve.work.job import Job
from nanochat.serve.work.served_model import ServedModel
from nanochat.serve.work.storage import Storage
from nanochat.store import messages
from nanochat.store.chat_tables import ConversationRow, MessageRow

GAP_S = 0.05  # between two records of an answer: often enough to look like writing
STATUS = {"stop": "complete", "tool": "complete", "length": "cut", "error": "failed"}


class AskedAnswer:
    """One answer on its way. `opening` is the first event; `replaces`: the question has an answer
    already, which is shown until this one is complete.
    """

    def __init__(
        self,
        *,
        model: ServedModel,
        job: Job,
        storage: Storage,
        row: MessageRow,
        question_id: int,
        replaces: bool,
        opening: dict[str, Any],
    ) -> None:
        self.model = model
        self.job = job
        self.storage = storage
        self.row = row
        self.question_id = question_id
        self.replaces = replaces
        self.opening = opening
        self.answer = Answer()
        self.ended = False

    async def stream(self) -> AsyncIterator[str]:
        """`opening`, then `{"token"}` for each piece of text, the calculator's pieces under
        `python` and `python_output`, and at the end `{"done": true}` with the whole message. What
        is sent has been written down before.
        """
        yield sse(self.opening)
        failure = ""
        try:
            async for batch in self.job.batches(GAP_S):
                for _, event in batch:
                    self.answer.add(event)
                await self.storage.write(update_message, self.row.id, self.said())
                for _, event in batch:
                    for kind, text in event.pieces:
                        yield sse({"token": text} if kind == "text" else {"token": "", kind: text})
        except ApiError as error:
            failure = error.message
        reason = "error" if failure else self.answer.finish_reason or "error"
        kept = await asyncio.wrap_future(self.end(STATUS.get(reason, "stopped")))
        done = {
            "done": True,
            "finish_reason": reason,
            "finish_detail": self.answer.finish_detail,
            "message": kept,
        }
        yield sse({**done, "error": failure} if failure else done)

    def said(self) -> dict[str, Any]:
        parts = self.answer.parts if self.answer.used_tool else None
        return {"content": self.answer.text, "parts": parts}

    def close(self) -> None:
        """The stream is over. If the reader left in the middle, so does the answer."""
        self.model.abandon(self.job)
        if not self.ended:
            self.end("stopped")

    def end(self, status: str) -> Future[dict[str, Any] | None]:
        """Have it written down how it ended, whoever waits for it: the message as the page shows
        it, None when it says nothing.
        """
        self.ended = True
        fields = {
            **self.said(),
            "status": status,
            "completion_tokens": self.answer.n_tokens,
            "server": None,
        }
        return self.storage.submit(end_answer, self.row.id, self.question_id, self.replaces, fields)


def update_message(session: Session, message_id: int, fields: dict[str, Any]) -> None:
    """Columns of a message as they are now."""
    values = messages.storable(fields)
    session.execute(update(MessageRow).where(MessageRow.id == message_id).values(**values))


def end_answer(
    session: Session, message_id: int, question_id: int, replaces: bool, fields: dict[str, Any]
) -> dict[str, Any] | None:
    """The last words of an answer. One that says nothing is taken out again; one that replaces
    another is shown from now on if it is whole.
    """
    row = session.get(MessageRow, message_id)
    conversation = None if row is None else session.get(ConversationRow, row.conversation_id)
    if row is None or conversation is None:
        return None  # deleted meanwhile
    followed = session.scalar(select(exists().where(MessageRow.parent_id == row.id)))
    if not fields["content"] and not fields["parts"] and not followed:
        if conversation.active_leaf_id == row.id:
            conversation.active_leaf_id = question_id
        session.delete(row)
        return None
    for name, value in messages.storable(fields).items():
        setattr(row, name, value)
    whole = fields["status"] in ("complete", "cut")
    if replaces and whole:
        conversation.active_leaf_id = row.id
    session.flush()
    tree = messages.MessageTree(session, conversation)
    return {**message_fields(row), "versions": tree.versions(row.id)}
