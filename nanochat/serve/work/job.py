"""A request on its way through the server's queue and workers."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass, field

from nanochat.engine import Event, SamplingParams
from nanochat.serve.api_error import ApiError
from nanochat.serve.work.remote import RemotePrompt
from nanochat.serve.work.usage_entry import UsageEntry
from nanochat.serve.work.worker import Worker


@dataclass(eq=False, kw_only=True)
class Job:
    """A request for `n` samples of each prompt. Answers are numbered through: those of the first
    prompt first.

    `turn` is done when its turn has come, `worker` set from then on. `running` counts the answers
    being written. `abandoned`: nobody reads them; `stopped`: the server ended them. The tokens of
    the answers are counted as they come, and written into `entry` where the server counts usage.
    """

    client: str
    prompts: Sequence[list[int] | RemotePrompt]
    params: SamplingParams
    n: int = 1
    created_s: float = field(default_factory=time.monotonic)
    turn: asyncio.Future[None] | None = None
    timer: asyncio.TimerHandle | None = None
    worker: Worker | None = None
    handed_s: float = 0.0
    first_answer: dict[int, int] = field(default_factory=dict)  # of each of the worker's requests
    running: int = 0
    abandoned: bool = False
    stopped: bool = False
    prompt_tokens: int = field(init=False)
    completion_tokens: int = 0
    first_token_s: float | None = None
    entry: UsageEntry | None = None
    token_times_s: dict[int, float] = field(default_factory=dict)
    arrived: asyncio.Queue[tuple[int, Event] | ApiError] = field(default_factory=asyncio.Queue)

    def __post_init__(self) -> None:
        self.prompt_tokens = sum(len(p) for p in self.prompts if isinstance(p, list))

    @property
    def remote(self) -> bool:
        """Another server is asked: it knows how many tokens the prompts have."""
        return any(isinstance(prompt, RemotePrompt) for prompt in self.prompts)

    @property
    def n_answers(self) -> int:
        return len(self.prompts) * self.n

    async def events(self) -> AsyncIterator[tuple[int, Event]]:
        """(number of the answer, event) as they come, until every answer is finished. ApiError
        when one fails.
        """
        async for batch in self.batches():
            for arrived in batch:
                yield arrived

    async def batches(self, gap_s: float = 0.0) -> AsyncIterator[list[tuple[int, Event]]]:
        """The same, in lists of those that have come since the last one was taken, at least
        `gap_s` apart.
        """
        left = self.n_answers
        last_s = 0.0
        while left:
            waiting = [await self.arrived.get()]
            if (wait_s := last_s + gap_s - time.monotonic()) > 0:
                await asyncio.sleep(wait_s)
            last_s = time.monotonic()
            while not self.arrived.empty():
                waiting.append(self.arrived.get_nowait())
            batch: list[tuple[int, Event]] = []
            for arrived in waiting:
                if isinstance(arrived, ApiError):
                    if batch:
                        yield batch
                    raise arrived
                left -= arrived[1].finish_reason is not None
                batch.append(arrived)
            yield batch
