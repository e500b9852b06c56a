"""The lane of one model, without a server: clients take turns at its places; whoever leaves makes
room.
"""

from __future__ import annotations

import asyncio

import pytest

from nanochat.engine import Event, SamplingParams
from nanochat.serve.errors import ApiError
from nanochat.serve.lane import Job, Lane, ModelInfo
from nanochat.serve.metrics import Metrics


class StillWorker:
    """Writes only when told to."""

    index, alive = 0, True

    def __init__(self):
        self.submitted: dict[int, int] = {}

    def start(self, deliver):
        self.deliver = deliver

    def submit(self, key, prompt, params, n):
        self.submitted[key] = n

    def cancel(self, key):
        self.finish(key, "cancelled")

    def finish(self, key, reason="stop"):
        n = self.submitted.pop(key)
        self.deliver([Event(request=key, sample=s, finish_reason=reason) for s in range(n)])

    def stop(self):
        pass


def with_lane(tokenizer, test, **settings):
    async def run():
        worker = StillWorker()
        lane = Lane(ModelInfo("m", tokenizer, 256, 265), [worker], Metrics(), **settings)
        lane.start()
        await test(lane, worker)

    asyncio.run(run())


def job(client: str, n: int = 1) -> Job:
    return Job(client, [[1, 2]], SamplingParams(), n)


def test_clients_take_turns(tokenizer):
    async def test(lane, worker):
        order = []

        async def ask(client):
            own = job(client)
            await lane.admit(own)
            order.append(client)
            async for _ in own.events():
                pass

        tasks = [asyncio.create_task(ask(client)) for client in "aaaaabc"]
        for _ in range(7):
            await asyncio.sleep(0)
            await asyncio.sleep(0.001)
            worker.finish(next(iter(worker.submitted)))
        await asyncio.gather(*tasks)
        assert order == list("aabcaaa")
        assert (
            lane.running == len(lane.queue) == 0
            and not lane._jobs
            and not lane._timers
            and not lane._started
        )

    with_lane(tokenizer, test, slots=1)


def test_a_wide_request_is_not_overtaken_for_ever(tokenizer):
    async def test(lane, worker):
        narrow = [asyncio.create_task(lane.admit(job("a"))) for _ in range(2)]
        await asyncio.sleep(0.001)
        wide = asyncio.create_task(lane.admit(job("b", n=4)))
        late = asyncio.create_task(lane.admit(job("c")))
        await asyncio.sleep(0.001)
        worker.finish(next(iter(worker.submitted)))
        await asyncio.sleep(0.001)
        assert all(task.done() for task in narrow) and not wide.done() and not late.done()
        worker.finish(next(iter(worker.submitted)))
        await asyncio.sleep(0.001)
        assert wide.done() and not late.done()
        with pytest.raises(ApiError, match="at most 4"):
            await lane.admit(job("d", n=5))
        late.cancel()
        await asyncio.gather(late, return_exceptions=True)
        assert len(lane.queue) == 0 and lane.running == 4

    with_lane(tokenizer, test, slots=4)


def test_leaving_the_queue_and_waiting_too_long(tokenizer):
    async def test(lane, worker):
        cancelled = []
        worker.cancel = cancelled.append
        running, leaving, waiting = job("a"), job("b"), job("c")
        await lane.admit(running)
        task = asyncio.create_task(lane.admit(leaving))
        await asyncio.sleep(0.001)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        assert len(lane.queue) == 0
        with pytest.raises(ApiError, match="time limit of 0.05 s passed") as caught:
            await lane.admit(waiting)
        assert caught.value.status == 429 and len(lane.queue) == 0
        for key in cancelled:
            worker.finish(key, "cancelled")
        last = [update async for update in running.events()][-1]
        assert (last.finish_reason, last.finish_detail) == (
            "cancelled",
            "the time limit of 0.05 s is reached",
        )
        assert lane.running == 0 and not lane._timers and not lane._started

    with_lane(tokenizer, test, slots=1, time_limit_s=0.05)
