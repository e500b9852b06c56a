"""Limits before a request is admitted, and its usage after: the same for every API."""

from __future__ import annotations

import asyncio
import logging
import time
from concurrent.futures import Future

from starlette.requests import Request

from nanochat.serve.api_error import ApiError, busy
from nanochat.serve.http.callers import KNOWN_S, Caller
from nanochat.serve.http.event_stream import unless_gone
from nanochat.serve.work.job import Job
from nanochat.serve.work.served_model import ModelCard, ServedModel
from nanochat.serve.work.storage import Storage
from nanochat.serve.work.usage_entry import UsageEntry
from nanochat.store import usage, users
from nanochat.store.usage import OverLimit, UsageStart

log = logging.getLogger(__name__)


class Metering:
    """Counts what callers use. `server` names this one among those on the same database."""

    def __init__(self, storage: Storage, server: str) -> None:
        self.storage = storage
        self.server = server
        self._restricted_models: set[str] = set()
        self._looked_s = -KNOWN_S

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
        if await self._restricted(card.name):
            await self._check_right(caller, card.name)
        begun = self.storage.submit(usage.begin, start)
        if start.user_limits or start.key_limits:
            try:
                await asyncio.wrap_future(begun)
            except OverLimit as error:
                raise busy(error.reason, error.retry_after_s) from None
        else:  # nothing can be against it: it is written while the answer begins
            begun.add_done_callback(log_failure)
        job.entry = UsageEntry(self.storage, start.public_id, job.created_s)

    async def _restricted(self, model: str) -> bool:
        """Whether the model is for some groups only; looked up once a second."""
        if self._looked_s + KNOWN_S < time.monotonic():
            self._restricted_models = await self.storage.read(users.restricted_models)
            self._looked_s = time.monotonic()
        return model in self._restricted_models

    async def _check_right(self, caller: Caller, model: str) -> None:
        if not await self.storage.read(users.may_use, caller.user_id, model):
            reason = f"model={model}: you are in none of the groups that may use it"
            raise ApiError(403, reason, "model", "model_not_allowed")


def log_failure(begun: Future[str]) -> None:
    if begun.exception() is not None:
        log.error("a row of usage could not be begun: %s", begun.exception())


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
