"""One served model: its queue, its workers, and the jobs on their way through both. Lives in one
event loop.
"""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import cached_property, partial
from typing import Any

from nanochat.engine import Event
from nanochat.engine.sequence import FinishReason
from nanochat.serve.api_error import ApiError, busy, shutting_down
from nanochat.serve.work.fair_queue import FairQueue, Full
from nanochat.serve.work.job import Job
from nanochat.serve.work.remote import RemoteEvent
from nanochat.serve.work.serving_metrics import ServingMetrics
from nanochat.serve.work.worker import Worker
from nanochat.tokenizer import Tokenizer

BYTES_PER_TOKEN = 4  # of common tokenizers, in English; on the safe side of what they reach


@dataclass(frozen=True, kw_only=True)
class ModelCard:
    """What the server knows of a checkpoint without holding its weights. `context` in tokens,
    `created` Unix time. `checkpoint_hash` tells checkpoints apart whatever they are called.
    `remote`: another server runs it, `tokenizer` is a stand-in, and `context` is 0 where that
    server does not tell.
    """

    name: str
    tokenizer: Tokenizer
    context: int
    vocab_size: int
    created: int = 0
    step: int | None = None
    remote: bool = False
    checkpoint_hash: str | None = None

    def count_tokens(self, text: str) -> int:
        """Tokens of a text; about as many where the tokenizer is another server's."""
        if self.remote:
            return -(-len(text.encode("utf-8", "replace")) // BYTES_PER_TOKEN)
        return len(self.tokenizer.encode(text))

    def beginning(self, text: str, n_tokens: int) -> str:
        """As much of a text as is within so many tokens."""
        if self.remote:
            data = text.encode("utf-8", "replace")[: max(0, n_tokens) * BYTES_PER_TOKEN]
            return data.decode("utf-8", "ignore")
        ids = self.tokenizer.encode(text)[: max(0, n_tokens)]
        return self.tokenizer.decode(ids).rstrip("\ufffd")

    @cached_property
    def most_bytes(self) -> int:
        """No text of more bytes than this fits the context: an early answer to texts that would
        take long to encode.
        """
        return int(self.tokenizer.token_bytes().max()) * self.context


class ServedModel:
    """Admits jobs, hands them to workers in fair order, and passes on what the workers write.

    A worker is given as many answers as it writes at once (`slots`) and no more, so that the order
    of the rest is decided here.
    """

    def __init__(
        self,
        card: ModelCard,
        workers: Sequence[Worker],
        metrics: ServingMetrics,
        *,
        slots: int = 32,
        max_queue: int = 256,
        time_limit_s: float = 600.0,
    ) -> None:
        self.card = card
        self.workers = list(workers)
        self.metrics = metrics
        self.slots = slots
        self.time_limit_s = time_limit_s
        self.queue: FairQueue[Job] = FairQueue(max_queue)
        self.draining = False
        self._ids = itertools.count(1)
        self._jobs: dict[int, Job] = {}  # by the number a worker knows a prompt by
        self._load = {worker.index: 0 for worker in self.workers}
        self._answer_s = 1.0  # a moving average
        self._keeping: set[asyncio.Task[None]] = set()
        self._show_holdings()

    def _show_holdings(self) -> None:
        """Let the metrics look at what is held when they are asked."""
        metrics, name = self.metrics, self.card.name
        metrics.waiting.labels(name).set_function(lambda: len(self.queue))
        metrics.running.labels(name).set_function(lambda: self.running)
        metrics.ready.labels(name).set_function(lambda: self.ready)
        for worker in self.workers:
            for held, gauge in metrics.cache.items():
                gauge.labels(name, worker.index).set_function(partial(held_by, worker, held))

    def hide_holdings(self) -> None:
        """The model is gone: no gauge shows it any more, nor keeps it in memory."""
        metrics, name = self.metrics, self.card.name
        for gauge in (metrics.waiting, metrics.running, metrics.ready):
            gauge.remove(name)
        for worker in self.workers:
            for gauge in metrics.cache.values():
                gauge.remove(name, str(worker.index))

    def start(self) -> None:
        """Start the workers; must be called in the event loop that everything else is called in."""
        loop = asyncio.get_running_loop()

        def in_loop(function: Callable[..., None], *arguments: Any) -> None:
            with contextlib.suppress(RuntimeError):  # the loop has closed: nobody is left to tell
                loop.call_soon_threadsafe(function, *arguments)

        for worker in self.workers:
            worker.start(partial(in_loop, self._take), partial(in_loop, self._lose, worker))

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
        """Wait for the job's turn; its events follow. ApiError when there is no place or no time
        for it.
        """
        if self.draining:
            raise shutting_down()
        if job.n_answers > self.slots:
            found = f"n times the number of prompts is {job.n_answers}"
            limit = f"this server writes at most {self.slots} at a time"
            raise ApiError(400, f"{found}; {limit}", "n")
        job.turn = asyncio.get_running_loop().create_future()
        try:
            displaced = self.queue.put(job.client, job)
        except Full:
            waiting = f"{len(self.queue)} requests are waiting; try again later"
            raise busy(waiting, self.wait_estimate_s()) from None
        if displaced is not None:
            reason = "too many of your requests are waiting; try again later"
            refuse(displaced, busy(reason, self._answer_s))
        self._pump()
        try:
            await asyncio.wait_for(job.turn, self.time_limit_s)
        except BaseException as error:
            self.queue.remove(job.client, job)
            self.abandon(job)  # its turn may have come in the moment its client went away
            if isinstance(error, asyncio.TimeoutError):
                reason = f"{self._time_limit} passed while the request was waiting"
                raise busy(reason, self.wait_estimate_s()) from None
            raise

    def abandon(self, job: Job) -> None:
        """Nobody reads the job's answers any more: free its slots. Nothing happens to a finished
        one.
        """
        job.abandoned = True
        self._cut(job, "cancelled", "the client went away")

    def drain(self) -> None:
        """Take no more jobs and refuse the waiting ones; the running ones go on."""
        self.draining = True
        while len(self.queue):
            refuse(self.queue.pop(), shutting_down())

    def cut_all(self) -> None:
        """End what is still running when the server stops."""
        for job in set(self._jobs.values()):
            job.stopped = True
            self._cut(job, "error", shutting_down().message)

    def wait_estimate_s(self) -> float:
        """About how long until the queue as it is now has been worked off."""
        rounds = 1 + len(self.queue) / (self.slots * max(1, len(self.workers)))
        return min(60.0, rounds * self._answer_s)

    def _cut(self, job: Job, reason: FinishReason, detail: str) -> None:
        if job.worker is not None and job.running:
            for request in job.first_answer:
                job.worker.cancel(request, reason, detail)

    @property
    def _time_limit(self) -> str:
        return f"the time limit of {self.time_limit_s:g} s"

    def _pump(self) -> None:
        """Hand out waiting jobs while a worker has room. A job that needs much room is not
        overtaken.
        """
        while (job := self.queue.peek()) is not None:
            alive = [worker for worker in self.workers if worker.alive]
            worker = min(alive, key=lambda w: self._load[w.index], default=None)
            if worker is None or self._load[worker.index] + job.n_answers > self.slots:
                return
            self.queue.pop()
            assert job.turn is not None
            if not job.turn.done():  # else its client has just gone away
                self._hand(job, worker)
                if not job.remote:  # else it is known with the first event whether there is one
                    job.turn.set_result(None)

    def _hand(self, job: Job, worker: Worker) -> None:
        job.worker = worker
        job.running = job.n_answers
        job.handed_s = time.monotonic()
        left_s = job.created_s + self.time_limit_s - job.handed_s
        ended = partial(self._cut, job, "length", f"{self._time_limit} is reached")
        job.timer = asyncio.get_running_loop().call_later(left_s, ended)
        self._load[worker.index] += job.n_answers
        for number, prompt in enumerate(job.prompts):
            request = next(self._ids)
            job.first_answer[request] = number * job.n
            self._jobs[request] = job
            params = job.params
            if params.seed is not None:  # equal prompts are to be answered differently
                params = replace(params, seed=(params.seed + number) % 2**63)
            worker.submit(request, prompt, params, job.n)
        self.metrics.prompt_tokens.labels(self.card.name).inc(job.prompt_tokens)

    # --- what workers write

    def _take(self, events: list[Event]) -> None:
        now_s = time.monotonic()
        for event in events:
            job = self._jobs.get(event.request)
            if job is not None:
                self._pass_on(job, event, now_s)
        self._pump()

    def _lose(self, worker: Worker, reason: str) -> None:
        """Nothing more will come of what the worker was given."""
        for job in {job for job in self._jobs.values() if job.worker is worker}:
            self._over(job, job.running, "error")
            self._deliver(job, ApiError(500, reason, code="engine_error"))

    def _pass_on(self, job: Job, event: Event, now_s: float) -> None:
        answer = job.first_answer[event.request] + event.sample
        if isinstance(event, RemoteEvent):
            self._open(job, event.failure)
            self._count(job, event.prompt_tokens, event.completion_tokens)
        elif event.token is not None:
            self._count(job, 0, 1)
        if event.token is not None or event.pieces:
            self._measure(job, answer, event, now_s)
        if event.finish_reason is not None:
            self._over(job, 1, event.finish_reason)
        if job.abandoned:
            return
        if event.finish_reason != "error":
            self._deliver(job, (answer, event))
        elif isinstance(event, RemoteEvent) and event.failure is not None:
            self._deliver(job, event.failure)
        elif job.stopped:
            self._deliver(job, shutting_down())
        else:
            self._deliver(job, ApiError(500, event.finish_detail, code="engine_error"))

    def _deliver(self, job: Job, arrived: tuple[int, Event] | ApiError) -> None:
        """Pass something on; the last of a job once its usage is kept."""
        if job.running or job.entry is None:
            job.arrived.put_nowait(arrived)
            return
        keeping = asyncio.get_running_loop().create_task(job.entry.kept())
        self._keeping.add(keeping)
        keeping.add_done_callback(self._keeping.discard)
        keeping.add_done_callback(lambda _: job.arrived.put_nowait(arrived))

    def _open(self, job: Job, failure: ApiError | None) -> None:
        """The first of another server's answer is there, or that there will be none."""
        assert job.turn is not None
        if job.turn.done():
            return
        if failure is None:
            job.turn.set_result(None)
        else:
            job.turn.set_exception(failure)

    def _count(self, job: Job, prompt_tokens: int, completion_tokens: int) -> None:
        """So many tokens more."""
        job.prompt_tokens += prompt_tokens
        job.completion_tokens += completion_tokens
        self.metrics.prompt_tokens.labels(self.card.name).inc(prompt_tokens)
        self.metrics.generated_tokens.labels(self.card.name).inc(completion_tokens)

    def _measure(self, job: Job, answer: int, event: Event, now_s: float) -> None:
        name, metrics = self.card.name, self.metrics
        last_s = job.token_times_s.get(answer)
        if not job.token_times_s:
            job.first_token_s = now_s
            metrics.first_token.labels(name).observe(now_s - job.created_s)
            metrics.cached_tokens.labels(name).inc(event.reused)
        elif last_s is not None and event.mask:
            metrics.between_tokens.labels(name).observe(now_s - last_s)
        job.token_times_s[answer] = now_s

    def _over(self, job: Job, n_answers: int, finish_reason: str) -> None:
        """So many of the job's answers have ended."""
        assert job.worker is not None and job.timer is not None
        self.metrics.answers.labels(self.card.name, finish_reason).inc(n_answers)
        self._load[job.worker.index] -= n_answers
        job.running -= n_answers
        if job.running == 0:
            self._answer_s += 0.1 * (time.monotonic() - job.handed_s - self._answer_s)
            job.timer.cancel()
            for request in job.first_answer:
                del self._jobs[request]
            if job.entry is not None:
                took = (job.prompt_tokens, job.completion_tokens, job.first_token_s)
                job.entry.close(finish_reason, *took)


def held_by(worker: Worker, held: str) -> float:
    """A number of the worker's engine; NaN while it has none."""
    stats = worker.stats()
    return float("nan") if stats is None else getattr(stats, held)


def refuse(job: Job, error: ApiError) -> None:
    """End the waiting of a job whose turn will not come."""
    if job.turn is not None and not job.turn.done():
        job.turn.set_exception(error)
