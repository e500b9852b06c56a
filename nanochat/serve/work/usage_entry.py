"""The row of usage that belongs to a request on its way."""

from __future__ import annotations

import asyncio
import logging
import time
from concurrent.futures import Future

from nanochat.serve.work.storage import Storage
from nanochat.store import usage
from nanochat.store.usage import UsageEnd

log = logging.getLogger(__name__)
STATUS = {"error": "failed", "cancelled": "cancelled"}  # all other ends are complete answers


class UsageEntry:
    """A row that is begun; `close` completes it, once. Lives in one event loop."""

    def __init__(self, storage: Storage, public_id: str, created_s: float) -> None:
        self.storage = storage
        self.public_id = public_id
        self.created_s = created_s
        self._closing: Future[None] | None = None

    def close(
        self,
        reason: str,
        prompt_tokens: int,
        completion_tokens: int,
        first_token_s: float | None,
    ) -> None:
        """How the answers ended and what they took. `first_token_s` by the monotonic clock."""
        if self._closing is not None:
            return
        end = UsageEnd(
            status="refused" if reason == "refused" else STATUS.get(reason, "complete"),
            prompt_tokens=prompt_tokens,
            completion_tokens=completion_tokens,
            latency_s=time.monotonic() - self.created_s,
            first_token_s=None if first_token_s is None else first_token_s - self.created_s,
        )
        self._closing = self.storage.submit(usage.finish, self.public_id, end)

    async def kept(self) -> None:
        """Until the row is complete in the store. A store that fails is not the client's fault: it
        is logged.
        """
        if self._closing is None:
            return
        try:
            await asyncio.shield(asyncio.wrap_future(self._closing))
        except Exception:
            log.exception("usage row %s could not be completed", self.public_id)
