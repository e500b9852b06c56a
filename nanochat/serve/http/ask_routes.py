"""Asking in a stored conversation: `POST /api/conversations/ID/messages`."""

from __future__ import annotations

import asyncio
from typing import Any

from fastapi import APIRouter
from sqlalchemy.orm import Session
from starlette.requests import Request
from starlette.responses import Response

from nanochat.serve.http.admission import chat_job
from nanochat.serve.http.asked_answer import AskedAnswer
from nanochat.serve.http.chat_schema import AskBody, Who
from nanochat.serve.http.chat_view import about, message_view
from nanochat.serve.http.error_response import ERRORS
from nanochat.serve.http.event_stream import EventStream
from nanochat.serve.http.metering import admit
from nanochat.serve.http.schema import MAX_MESSAGES, PageRequest
from nanochat.serve.work import asking
from nanochat.serve.work.asking import Asked
from nanochat.serve.work.job import Job
from nanochat.serve.work.served_model import BYTES_PER_TOKEN, ServedModel
from nanochat.serve.work.service import Service
from nanochat.serve.work.storage import Storage
from nanochat.store import messages
from nanochat.store.chat_tables import ConversationRow, MessageRow
from nanochat.store.messages import MessageTree

REMOTE_CONTEXT_TOKENS = 100_000  # sent to a model that does not tell how much it holds


def ask_router(service: Service, storage: Storage) -> APIRouter:
    routes = APIRouter(prefix="/api/conversations", tags=["page"], responses=ERRORS)

    @routes.post("/{public_id}/messages", summary="Ask, or have a question answered again")
    async def ask(public_id: str, body: AskBody, request: Request, caller: Who) -> Response:
        conversation = await storage.read(asking.owned, caller.user_id, public_id)
        model = service.model(conversation.model)
        asked = await storage.read(
            asking.gather,
            caller.user_id,
            public_id,
            content=body.content,
            edits=body.edits,
            answer=body.answer,
            files=body.attachments,
            most_characters=most_characters(model),
        )
        request_body = await asyncio.to_thread(request_of, asked, model, service)
        job, dropped_turns = await chat_job(model, request_body, service.defaults, caller.client)
        question = asked.question
        if question is None:
            question = await storage.write(asking.save_question, caller.user_id, asked)
        await admit(model, job, request)
        try:
            row, opening = await storage.write(
                begin_answer,
                caller.user_id,
                asked,
                question.id,
                model,
                job,
                server=request.app.state.metering.server,
            )
        except BaseException:
            model.abandon(job)
            raise
        answer = AskedAnswer(
            model=model,
            job=job,
            storage=storage,
            row=row,
            question_id=question.id,
            replaces=asked.answered_before,
            opening={**opening, "dropped_turns": dropped_turns},
        )
        return EventStream(answer.stream(), answer.close, {})

    return routes


def most_characters(model: ServedModel) -> int:
    """More of a conversation than this fits no context."""
    card = model.card
    if card.remote:
        return (card.context or REMOTE_CONTEXT_TOKENS) * BYTES_PER_TOKEN
    return card.most_bytes


def request_of(asked: Asked, model: ServedModel, service: Service) -> PageRequest:
    """The question as a request, with the settings of its conversation. ApiError 400 for those."""
    settings: dict[str, Any] = asked.conversation.settings
    asked.fit(model.card, settings.get("max_tokens") or service.defaults.max_tokens)
    said = asked.messages()
    return PageRequest.model_validate(
        {**settings, "messages": said[:1] + said[1:][-MAX_MESSAGES + 1 :]}
    )


def begin_answer(
    session: Session,
    user_id: int,
    asked: Asked,
    question_id: int,
    model: ServedModel,
    job: Job,
    *,
    server: str,
) -> tuple[MessageRow, dict[str, Any]]:
    """(the answer's row, still empty; what the page is told of both and of the conversation)."""
    conversation = session.get_one(ConversationRow, asked.conversation.id)
    row = messages.add(
        session,
        conversation,
        question_id,
        "assistant",
        status="streaming",
        model=model.card.name,
        checkpoint_hash=model.card.checkpoint_hash,
        prompt_tokens=job.prompt_tokens,
        settings=conversation.settings,
        server=server,
    )
    if not asked.answered_before:
        conversation.active_leaf_id = row.id
    session.flush()
    tree = MessageTree(session, conversation)
    views = messages.shown(session, tree, user_id, [question_id, row.id])
    question, answer = (message_view(view) for view in views)
    return row, {
        "conversation": about(session, conversation),
        "question": question,
        "answer": answer,
    }
