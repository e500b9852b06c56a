"""One served model, without a server: clients take turns at its places; whoever leaves makes
room.
"""

from __future__ import annotations

import asyncio
from importlib import resources

import pytest

from nanochat.engine import Event, SamplingParams
from nanochat.serve.api_error import ApiError
from nanochat.serve.work.job import Job
from nanochat.serve.work.served_model import ModelCard, ServedModel
from nanochat.serve.work.serving_metrics import ServingMetrics


class StillWorker:
    """Writes only when told to."""

    def __init__(self, index: int = 0):
        self.index = index
        self.alive = True
        self.submitted: dict[int, int] = {}

    def start(self, deliver, lost):
        self.deliver = deliver
        self.lost = lost

    def submit(self, key, prompt, params, n):
        self.submitted[key] = n

    def cancel(self, key, reason, detail):
        self.finish(key, reason, detail)

    def finish(self, key, reason="stop", detail=""):
        n = self.submitted.pop(key)
        end = {"finish_reason": reason, "finish_detail": detail}
        self.deliver([Event(request=key, sample=sample, **end) for sample in range(n)])

    def stop(self):
        pass


def with_model(tokenizer, test, **settings):
    """Run `test(model, *workers)` in the model's event loop."""
    workers = [StillWorker(index) for index in range(settings.pop("workers", 1))]

    async def run():
        card = ModelCard(name="m", tokenizer=tokenizer, context=256, vocab_size=265)
        model = ServedModel(card, workers, ServingMetrics(), **settings)
        model.start()
        await test(model, *workers)

    asyncio.run(run())


def job(client: str, n: int = 1) -> Job:
    return Job(client=client, prompts=[[1, 2]], params=SamplingParams(), n=n)


def test_clients_take_turns(tokenizer):
    async def test(model, worker):
        order = []

        async def ask(client):
            own = job(client)
            await model.admit(own)
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
        assert model.running == len(model.queue) == 0

    with_model(tokenizer, test, slots=1)


def test_a_wide_request_is_not_overtaken_for_ever(tokenizer):
    async def test(model, worker):
        narrow = [asyncio.create_task(model.admit(job("a"))) for _ in range(2)]
        await asyncio.sleep(0.001)
        wide = asyncio.create_task(model.admit(job("b", n=4)))
        late = asyncio.create_task(model.admit(job("c")))
        await asyncio.sleep(0.001)
        worker.finish(next(iter(worker.submitted)))
        await asyncio.sleep(0.001)
        assert all(task.done() for task in narrow) and not wide.done() and not late.done()
        worker.finish(next(iter(worker.submitted)))
        await asyncio.sleep(0.001)
        assert wide.done() and not late.done()
        with pytest.raises(ApiError, match="at most 4"):
            await model.admit(job("d", n=5))
        late.cancel()
        await asyncio.gather(late, return_exceptions=True)
        assert len(model.queue) == 0 and model.running == 4

    with_model(tokenizer, test, slots=4)


def test_leaving_the_queue_and_waiting_too_long(tokenizer):
    async def test(model, worker):
        cancelled = []
        worker.cancel = lambda *final_words: cancelled.append(final_words)
        running, leaving, waiting = job("a"), job("b"), job("c")
        await model.admit(running)
        task = asyncio.create_task(model.admit(leaving))
        await asyncio.sleep(0.001)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        assert len(model.queue) == 0
        with pytest.raises(ApiError, match="time limit of 0.05 s passed") as caught:
            await model.admit(waiting)
        assert caught.value.status == 429 and len(model.queue) == 0
        for final_words in cancelled:
            worker.finish(*final_words)
        _, last = [arrived async for arrived in running.events()][-1]
        assert (last.finish_reason, last.finish_detail) == (
            "length",
            "the time limit of 0.05 s is reached",
        )
        assert model.running == 0

    with_model(tokenizer, test, slots=1, time_limit_s=0.05)


def test_a_lost_worker_ends_what_it_was_given_and_nothing_else(tokenizer):
    async def test(model, worker, other):
        given, kept, waiting = job("a", n=2), job("b", n=2), job("c", n=2)
        await model.admit(given)
        await model.admit(kept)
        assert (given.worker, kept.worker) == (worker, other)
        task = asyncio.create_task(model.admit(waiting))
        await asyncio.sleep(0.001)
        worker.alive = False
        worker.lost("the worker process died")
        with pytest.raises(ApiError, match="the worker process died") as caught:
            async for _ in given.events():
                pass
        assert caught.value.status == 500 and model.running == 2 and not task.done()
        worker.alive = True
        worker.submitted.clear()
        worker.deliver([])  # it is back
        await task
        assert waiting.worker is worker and model.running == 4
        model.abandon(given)  # its client leaves late: no harm
        for each in (worker, other):
            each.finish(next(iter(each.submitted)))
        assert [event.finish_reason async for _, event in kept.events()] == ["stop", "stop"]
        assert model.running == len(model.queue) == 0

    with_model(tokenizer, test, slots=2, workers=2)


def test_the_work_side_knows_no_http():
    room = resources.files("nanochat.serve") / "work"
    texts = [file.read_text() for file in room.iterdir() if file.name.endswith(".py")]
    assert len(texts) > 5
    for word in ("nanochat.serve.http", "fastapi", "starlette", "uvicorn"):
        assert not any(f"from {word}" in text or f"import {word}" in text for text in texts), word
