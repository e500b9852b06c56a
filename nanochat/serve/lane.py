"""One served model: its queue, its workers, and the requests on their way through both. Lives in
one event loop.
"""

from __future__ import annotations

import asyncio
import itertools
import time
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property

from nanochat.engine import Event, SamplingParams
from nanochat.serve.errors import ApiError, busy
from nanochat.serve.fair_queue import FairQueue, Full
from nanochat.serve.metrics import Metrics
from nanochat.serve.worker import Worker
from nanochat.tokenizer import Tokenizer


@dataclass(frozen=True)
class ModelInfo:
    """What the server knows of a checkpoint without holding its weights. `context` in tokens,
    `created` Unix time.
    """

    name: str
    tokenizer: Tokenizer
    context: int
    vocab_size: int
    created: int = 0
    step: int | None = None

    @cached_property
    def most_bytes(self) -> int:
        """No text of more bytes than this fits the context: an early answer to texts that would
        take long to encode.
        """
        return int(self.tokenizer.token_bytes().max()) * self.context


@dataclass(eq=False)
class Job:
    """A request for `n` samples of each prompt. Samples are numbered through: those of the first
    prompt first.
    """

    client: str
    prompts: list[list[int]]
    params: SamplingParams
    n: int = 1
    updates: asyncio.Queue[Event] = field(default_factory=asyncio.Queue)
    created_s: float = field(default_factory=time.monotonic)
    worker: Worker | None = None
    handed_s: float = 0.0
    keys: dict[int, int] = field(
        default_factory=dict
    )  # what the worker knows a prompt by -> which prompt
    running: int = 0  # samples that are being written
    cut_because: str = ""
    abandoned: bool = False
    token_times_s: dict[int, float] = field(default_factory=dict)

    @property
    def cost(self) -> int:
        return len(self.prompts) * self.n

    async def events(self) -> AsyncIterator[Event]:
        """Its updates as they come, until every sample is finished."""
        left = self.cost
        while left:
            update = await self.updates.get()
            left -= update.finish_reason is not None
            yield update


class Lane:
    """Admits jobs, hands them to workers in fair order, and passes on what the workers write.

    A worker is given as many samples as it runs at once and no more, so that the order of the rest
    is decided here.
    """

    def __init__(
        self,
        info: ModelInfo,
        workers: Sequence[Worker],
        metrics: Metrics,
        *,
        slots: int = 32,
        max_queue: int = 256,
        time_limit_s: float = 600.0,
    ) -> None:
        self.info, self.workers, self.metrics = info, list(workers), metrics
        self.slots, self.time_limit_s = slots, time_limit_s
        self.queue: FairQueue[Job] = FairQueue(max_queue)
        self.draining = False
        self._ids = itertools.count(1)
        self._jobs: dict[int, Job] = {}  # by worker key
        self._load = {worker.index: 0 for worker in self.workers}
        self._started: dict[Job, asyncio.Future[None]] = {}
        self._timers: dict[Job, asyncio.TimerHandle] = {}
        self._answer_s = 1.0  # a moving average
        self._loop: asyncio.AbstractEventLoop | None = None

    def start(self) -> None:
        """Start the workers; must be called in the event loop that everything else is called in."""
        loop = self._loop = asyncio.get_running_loop()

        def deliver(updates: list[Event]) -> None:
            try:
                loop.call_soon_threadsafe(self._take, updates)
            except RuntimeError:  # the loop has closed: nobody is left to tell
                pass

        for worker in self.workers:
            worker.start(deliver)

    def stop(self) -> None:
        for worker in self.workers:
            worker.stop()

    @property
    def running(self) -> int:
        """Answers being written."""
        return sum(self._load.values())

    @property
    def ready(self) -> bool:
        return not self.draining and any(worker.alive for worker in self.workers)

    # --- a job's life

    async def admit(self, job: Job) -> None:
        """Wait for the job's turn; its updates follow. ApiError when there is no place or no time
        for it.
        """
        assert self._loop is not None, "start() comes first"
        if self.draining:
            raise ApiError(
                503, "the server is shutting down", code="shutting_down", retry_after_s=10
            )
        if job.cost > self.slots:
            reason = (
                f"n times the number of prompts is {job.cost}; this server writes at most "
                f"{self.slots} at a time"
            )
            raise ApiError(400, reason, "n")
        try:
            displaced = self.queue.put(job.client, job)
        except Full:
            raise busy(
                f"{len(self.queue)} requests are waiting; try again later", self.wait_estimate_s()
            ) from None
        self._timers[job] = self._loop.call_later(self.time_limit_s, self._expire, job)
        self._started[job] = self._loop.create_future()
        if displaced is not None:
            self._refuse(
                displaced,
                busy("too many of your requests are waiting; try again later", self._answer_s),
            )
        self._pump()
        try:
            await self._started[job]
        except BaseException:
            self.abandon(job)  # its turn may have come in the moment its client went away
            raise
        finally:
            self._started.pop(job, None)
            if job.worker is None:
                self.queue.remove(job.client, job)
                self._timers.pop(job).cancel()

    def abandon(self, job: Job) -> None:
        """Nobody reads the job's answer any more: free its slots. Nothing happens to a finished
        one.
        """
        job.abandoned = True
        self._cut(job, "the client went away")

    def drain(self) -> None:
        """Take no more jobs and refuse the waiting ones; the running ones go on."""
        self.draining = True
        while len(self.queue):
            self._refuse(
                self.queue.pop(), ApiError(503, "the server is shutting down", code="shutting_down")
            )

    def cut_all(self, why: str) -> None:
        for job in set(self._jobs.values()):
            self._cut(job, why)

    def wait_estimate_s(self) -> float:
        """About how long until the queue as it is now has been worked off."""
        rounds = 1 + len(self.queue) / (self.slots * max(1, len(self.workers)))
        return min(60.0, rounds * self._answer_s)

    def _cut(self, job: Job, why: str) -> None:
        if job.worker is not None and job.running:
            job.cut_because = job.cut_because or why
            for key in job.keys:
                job.worker.cancel(key)

    def _refuse(self, job: Job, error: ApiError) -> None:
        started = self._started.get(job)
        if started is not None and not started.done():
            started.set_exception(error)

    def _expire(self, job: Job) -> None:
        limit = f"the time limit of {self.time_limit_s:g} s"
        if job.worker is None:
            self.queue.remove(job.client, job)
            self._refuse(
                job, busy(f"{limit} passed while the request was waiting", self.wait_estimate_s())
            )
        else:
            self._cut(job, f"{limit} is reached")

    def _pump(self) -> None:
        """Hand out waiting jobs while a worker has room. A job that needs much room is not
        overtaken.
        """
        while (job := self.queue.peek()) is not None:
            alive = [worker for worker in self.workers if worker.alive]
            worker = min(alive, key=lambda w: self._load[w.index], default=None)
            if worker is None or self._load[worker.index] + job.cost > self.slots:
                return
            self.queue.pop()
            started = self._started[job]
            if not started.done():  # else its client has just gone away
                self._hand(job, worker)
                started.set_result(None)

    def _hand(self, job: Job, worker: Worker) -> None:
        job.worker, job.running, job.handed_s = worker, job.cost, time.monotonic()
        self._load[worker.index] += job.cost
        for number, prompt in enumerate(job.prompts):
            key = next(self._ids)
            job.keys[key], self._jobs[key] = number, job
            seed = job.params.seed
            params = (
                job.params
                if seed is None or not number
                else replace(job.params, seed=(seed + number) % 2**63)
            )
            worker.submit(key, prompt, params, job.n)
        self.metrics.prompt_tokens.add(sum(map(len, job.prompts)), self.info.name)

    # --- what workers write

    def _take(self, updates: list[Event]) -> None:
        now_s = time.monotonic()
        for update in updates:
            job = self._jobs.get(update.request)
            if job is not None:
                self._pass_on(job, update, now_s)
        self._pump()

    def _pass_on(self, job: Job, update: Event, now_s: float) -> None:
        sample = job.keys[update.request] * job.n + update.sample
        if update.token is not None:
            self._measure(job, sample, update, now_s)
        if update.finish_reason is not None:
            if update.finish_reason == "cancelled":
                update = replace(update, finish_detail=job.cut_because)
            self._sample_over(job, update, now_s)
        if not job.abandoned:
            job.updates.put_nowait(replace(update, sample=sample))

    def _measure(self, job: Job, sample: int, update: Event, now_s: float) -> None:
        name, last_s = self.info.name, job.token_times_s.get(sample)
        self.metrics.generated_tokens.add(1, name)
        if not job.token_times_s:
            self.metrics.first_token.observe(now_s - job.created_s, name)
            self.metrics.cached_tokens.add(update.reused, name)
        elif last_s is not None and update.mask:
            self.metrics.between_tokens.observe(now_s - last_s, name)
        job.token_times_s[sample] = now_s

    def _sample_over(self, job: Job, update: Event, now_s: float) -> None:
        assert job.worker is not None and update.finish_reason is not None
        self.metrics.answers.add(1, self.info.name, update.finish_reason)
        job.running -= 1
        self._load[job.worker.index] -= 1
        if job.running == 0:
            self._answer_s += 0.1 * (now_s - job.handed_s - self._answer_s)
            self._timers.pop(job).cancel()
            for key in job.keys:
                del self._jobs[key]
