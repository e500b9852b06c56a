"""Limits before a request is admitted, and its usage after: the same for every API."""

from __future__ import annotations

from sqlalchemy.orm import Session
from starlette.requests import Request

from nanochat.serve.api_error import ApiError, busy
from nanochat.serve.http.callers import Caller
from nanochat.serve.http.event_stream import unless_gone
from nanochat.serve.work.job import Job
from nanochat.serve.work.served_model import ModelCard, ServedModel
from nanochat.serve.work.storage import Storage
from nanochat.serve.work.usage_entry import UsageEntry
from nanochat.store import usage, users
from nanochat.store.usage import OverLimit, UsageStart


class Metering:
    """Counts what callers use. `server` names this one among those on the same database."""

    def __init__(self, storage: Storage, server: str) -> None:
        self.storage = storage
        self.server = server

    async def begin(self, caller: Caller, card: ModelCard, job: Job) -> None:
        """Let the job be counted, if its caller may ask for it. ApiError 403 for a model that is
        for others, 429 when a limit is reached.
        """
        start = UsageStart(
            user_id=caller.user_id,
            api_key_id=caller.api_key_id,
            model=card.name,
            checkpoint_hash=card.checkpoint_hash,
            prompt_tokens=job.prompt_tokens,
            most_tokens=most_tokens(card, job),
            server=self.server,
            user_limits=caller.user_limits,
            key_limits=caller.key_limits,
        )
        try:
            number = await self.storage.write(begin_if_allowed, start)
        except OverLimit as error:
            raise busy(error.reason, error.retry_after_s) from None
        if number is None:
            reason = f"model={card.name}: you are in none of the groups that may use it"
            raise ApiError(403, reason, "model", "model_not_allowed")
        job.entry = UsageEntry(self.storage, number, job.created_s)


def begin_if_allowed(session: Session, start: UsageStart) -> int | None:
    """The row of a request that begins; None when the user may not use the model."""
    if not users.may_use(session, start.user_id, start.model):
        return None
    return usage.begin(session, start)


def most_tokens(card: ModelCard, job: Job) -> int:
    """The longest that the answers can get."""
    asked = job.params.max_tokens
    room = card.context or asked or 0  # another server may not tell what it holds
    taken = [len(prompt) if isinstance(prompt, list) else 0 for prompt in job.prompts]
    return job.n * sum(min(asked or room, max(0, room - n)) for n in taken)


async def admit(model: ServedModel, job: Job, request: Request) -> None:
    """Count the job and wait for its turn. ApiError when it does not come."""
    metering: Metering | None = getattr(request.app.state, "metering", None)
    if metering is not None:
        await metering.begin(request.state.caller, model.card, job)
    try:
        await unless_gone(model.admit(job), request)
    except BaseException:
        if job.entry is not None and not job.running:
            job.entry.close("refused", 0, 0, None)
        raise
