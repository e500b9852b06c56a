"""Checkpoints are loaded, made the default and unloaded while others answer."""

from __future__ import annotations

import asyncio
import gc
import weakref

import pytest
import torch
from prometheus_client import generate_latest

from nanochat.checkpoint_manager import checkpoint_dir
from nanochat.engine import SamplingParams
from nanochat.runtime.world import World
from nanochat.serve.api_error import ApiError
from nanochat.serve.chat_web import load_service
from nanochat.serve.web_config import ChatWebConfig
from nanochat.serve.work.job import Job
from nanochat.serve.work.model_loader import loadable

WORLD = World(0, 0, 1, torch.device("cpu"))


async def answer(service, name, n_tokens: int = 4, begun: asyncio.Event | None = None) -> str:
    model = service.model(name)
    prompt = [model.card.tokenizer.get_bos_token_id(), 1, 2]
    params = SamplingParams(temperature=0.0, max_tokens=n_tokens)
    job = Job(client="c", prompts=[prompt], params=params)
    await model.admit(job)
    text = ""
    async for _, event in job.events():
        text += event.text
        if begun is not None:
            begun.set()
    return text


async def until(condition, seconds: float = 10.0) -> None:
    async def look():
        while not condition():
            await asyncio.sleep(0.01)

    await asyncio.wait_for(look(), seconds)


def with_service(save_tiny, test) -> None:
    """Run `test(service, a)` over step 10 of d2, which answers `a`; step 20 lies beside it."""
    save_tiny(0, 10)
    service = load_service(ChatWebConfig(step=10), WORLD)
    save_tiny(1, 20)

    async def run():
        service.start()
        try:
            await test(service, await answer(service, None, 200))
        finally:
            service.stop()

    asyncio.run(run())


def test_running_and_waiting_answers_finish_on_the_old_model(base_dir, save_tiny):
    async def test(service, a):
        old = service.model(None)
        old.slots = 1
        begun = asyncio.Event()
        running = asyncio.create_task(answer(service, None, 200, begun))
        waiting = asyncio.create_task(answer(service, "sft:d2", 7))
        await begun.wait()
        assert await service.load("sft:d2:20") == "sft:d2:20"
        b = await answer(service, "sft:d2:20")
        assert service.model("sft") is old and not a.startswith(b)
        service.make_default("sft:d2:20")
        asked = service.unload("sft:d2")
        assert list(service.models) == ["sft:d2:20"] and service.ready
        for name in (None, "sft", "sft:d2", "sft:d2:20"):
            assert await answer(service, name) == b
        with pytest.raises(ApiError, match="not served here; there is sft:d2:20"):
            service.model("sft:d2:10")
        assert await running == a and await waiting == a[:7]
        await until(lambda: not service.leaving)
        assert asked <= 3 and not any(worker.alive for worker in old.workers)

    with_service(save_tiny, test)


def test_nothing_of_an_unloaded_model_stays(base_dir, save_tiny):
    async def test(service, a):
        gone = weakref.ref(service.model(None).workers[0].engine.model)
        await service.load("sft:d2:20")
        service.unload("sft:d2")
        await until(lambda: not service.leaving)
        gc.collect()
        assert gone() is None
        shown = generate_latest(service.metrics.registry).decode()
        assert 'ready{model="sft:d2"}' not in shown and 'ready{model="sft:d2:20"} 1.0' in shown
        assert await service.load("sft:d2:10") == "sft:d2"  # the name is free again
        assert await answer(service, "sft:d2") == a[:4]
        assert not a.startswith(await answer(service, "sft:d2:20"))

    with_service(save_tiny, test)


def test_what_cannot_be_is_said_and_changes_nothing(base_dir, save_tiny):
    async def test(service, a):
        wrong = {
            "sft:d2:30": "30",
            "sft:d9": "d9",
            "nonsense": "stage:tag",
            "sft:../d2": "stage:tag",
            "": "stage:tag",
        }
        for name, words in wrong.items():
            with pytest.raises(ApiError, match=words) as caught:
                await service.load(name)
            assert caught.value.status == 400
        with pytest.raises(ApiError, match="the only model") as caught:
            service.unload("sft:d2")
        assert caught.value.status == 409
        for change in (service.unload, service.make_default):
            with pytest.raises(ApiError, match="not served") as caught:
                change("sft:d2:20")
            assert caught.value.status == 404
        with pytest.raises(ApiError, match="served already"):
            await asyncio.gather(service.load("sft:d2:20"), service.load("sft:d2:20"))
        assert list(service.models) == ["sft:d2", "sft:d2:20"]
        damaged = checkpoint_dir("sft", "d2") / "model_000020.pt"
        damaged.write_bytes(damaged.read_bytes()[:-10])
        service.unload("sft:d2:20")
        with pytest.raises(ApiError, match="model_000020"):
            await service.load("sft:d2:20")
        assert loadable() == ["sft:d2:10"] and await answer(service, None) == a[:4]

    with_service(save_tiny, test)


def test_the_end_of_the_server_cuts_what_is_leaving_too(base_dir, save_tiny):
    async def test(service, a):
        service.drain_s = 0.0
        begun = asyncio.Event()
        running = asyncio.create_task(answer(service, None, 240, begun))
        await begun.wait()
        await service.load("sft:d2:20")
        service.unload("sft:d2")
        await service.drain()
        if not running.done():
            with pytest.raises(ApiError, match="shutting down"):
                await running
        with pytest.raises(ApiError, match="shutting down"):
            await service.load("sft:d2:10")
        assert list(service.models) == ["sft:d2:20"]

    with_service(save_tiny, test)
