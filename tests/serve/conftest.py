"""A real server on an ephemeral loopback port, over a tiny random model that spells in bytes."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import httpx
import pytest
import torch
from browser import CHROMIUM, QUIET, ScriptedWorker, Tab, scripted_service
from team import Person, add_people, sqlite_storage
from tiny_config import tiny_config

from nanochat.checkpoint_manager import checkpoint_dir, save_checkpoint
from nanochat.engine import Engine
from nanochat.gpt import GPT
from nanochat.serve.http.app import build_app
from nanochat.serve.http.server import Server, listen
from nanochat.serve.work.served_model import ModelCard, ServedModel
from nanochat.serve.work.service import Defaults, Service
from nanochat.serve.work.serving_metrics import ServingMetrics
from nanochat.serve.work.worker import ThreadWorker
from nanochat.tokenizer import Tokenizer

CONTEXT = 256


@pytest.fixture(scope="session")
def tokenizer() -> Tokenizer:
    return Tokenizer.byte_level()


def tiny_model(tokenizer: Tokenizer, seed: int = 0) -> GPT:
    """Two layers; it writes printable letters only, so that answers run to their max_tokens and are
    never empty.
    """
    model = GPT(tiny_config(tokenizer.get_vocab_size(), sequence_len=CONTEXT))
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.normal_(0.0, 1.5 / parameter.size(-1) ** 0.5, generator=generator)
        letters = torch.zeros(tokenizer.get_vocab_size(), dtype=torch.bool)
        letters[ord("a") : ord("z") + 1] = True
        model.lm_head.weight[: len(letters)][~letters] = 0.0
        model.lm_head.weight.mul_(6)
    return model.eval().requires_grad_(False)


class SlowEngine(Engine):
    """Takes its time over every step, so that tests can do something in the middle of an answer."""

    step_s = 0.0

    def step(self) -> list[Any]:
        time.sleep(self.step_s)
        return super().step()


@dataclass
class Running:
    """A server under test."""

    url: str
    service: Service
    engine: SlowEngine
    server: Server
    thread: threading.Thread
    headers: dict[str, str] = field(default_factory=dict)
    http: httpx.Client = field(default_factory=lambda: httpx.Client(verify=False, timeout=30))

    @property
    def model(self) -> ServedModel:
        return self.service.model(None)

    def stats(self) -> dict[str, Any]:
        return self.http.get(f"{self.url}/stats", headers=self.headers).json()

    def wait(
        self, condition: Callable[[dict[str, Any]], bool], seconds: float = 10.0
    ) -> dict[str, Any]:
        """Statistics once they fulfil the condition."""
        end = time.monotonic() + seconds
        while not condition(stats := self.stats()):
            assert time.monotonic() < end, f"still {stats}"
            time.sleep(0.02)
        return stats

    def wait_until_idle(self) -> dict[str, Any]:
        """Nothing running, nothing waiting, no page held."""
        idle = ("running", "waiting", "pages_used")
        return self.wait(
            lambda s: (
                s["running"] == s["waiting"] == 0 and not any(s["workers"][0][k] for k in idle)
            )
        )

    def stop(self) -> None:
        self.http.close()
        self.server.should_exit = True
        self.thread.join(timeout=15)
        assert not self.thread.is_alive(), "the server did not stop"


def tiny_service(
    tokenizer: Tokenizer, native: bool = True, **settings: Any
) -> tuple[Service, list[SlowEngine]]:
    """Two tiny models and the engines they run on."""
    slots = settings.pop("slots", 8)
    service = Service(
        models={},
        metrics=ServingMetrics(),
        defaults=Defaults(temperature=0.0, top_k=50, max_tokens=32),
        drain_s=settings.pop("drain_s", 2.0),
    )
    engines = []
    for number, name in enumerate(("sft:d2", "base:d2")):
        model = tiny_model(tokenizer, number)
        engines.append(SlowEngine(model, tokenizer, max_running=slots, native=native))
        card = ModelCard(
            name=name,
            tokenizer=tokenizer,
            context=CONTEXT,
            vocab_size=tokenizer.get_vocab_size(),
        )
        workers = [ThreadWorker(engines[-1], name)]
        service.models[name] = ServedModel(card, workers, service.metrics, slots=slots, **settings)
    return service, engines


def start_server(
    tokenizer: Tokenizer,
    keys: tuple[str, ...] = (),
    allowed_origins: tuple[str, ...] = (),
    native: bool = True,
    **settings: Any,
) -> Running:
    port = settings.pop("port", 0)
    service = settings.pop("service", None)
    storage = settings.pop("storage", None)
    oidc = settings.pop("oidc", None)
    root_path = settings.pop("root_path", "")
    engines: list[SlowEngine | None] = [None]
    if service is None:
        service, engines = tiny_service(tokenizer, native, **settings)
    bound = listen("127.0.0.1", port)
    app = build_app(service, keys, allowed_origins, storage=storage, server_name="test", oidc=oidc)
    server = Server(app, service, root_path=root_path)
    thread = threading.Thread(target=server.run, kwargs={"sockets": [bound]}, daemon=True)
    thread.start()
    while not server.started:
        assert thread.is_alive(), "the server did not start"
        time.sleep(0.01)
    return Running(
        f"http://127.0.0.1:{bound.getsockname()[1]}", service, engines[0], server, thread
    )


@pytest.fixture(scope="session")
def shared_server(tokenizer: Tokenizer) -> Iterator[Running]:
    running = start_server(tokenizer)
    yield running
    running.stop()


@pytest.fixture
def server(shared_server: Running) -> Iterator[Running]:
    """A server for tests that leave it as it was; that they did is checked."""
    shared_server.engine.step_s = 0.0
    yield shared_server
    shared_server.engine.step_s = 0.0
    shared_server.wait_until_idle()


@pytest.fixture
def own_server(tokenizer: Tokenizer) -> Iterator[Callable[..., Running]]:
    """Starts servers with settings of their own; they are stopped when the test is over."""
    started: list[Running] = []

    def start(**settings: Any) -> Running:
        started.append(start_server(tokenizer, **settings))
        return started[-1]

    yield start
    for running in started:
        running.stop()


@pytest.fixture
def checkpoint(base_dir: Path, tokenizer: Tokenizer) -> Path:
    """The tiny model as the sft checkpoint d2."""
    model, directory = tiny_model(tokenizer), checkpoint_dir("sft", "d2")
    meta = {"model_config": asdict(model.config), "tokenizer": tokenizer.identity()}
    save_checkpoint(directory, 10, model.state_dict(), None, meta)
    tokenizer.save(directory / "tokenizer")
    return directory


@pytest.fixture
def save_tiny(tokenizer: Tokenizer) -> Callable[[int, int], None]:
    """Saves the tiny model of a seed as a step of the sft checkpoint d2."""

    def save(seed: int, step: int) -> None:
        model, directory = tiny_model(tokenizer, seed), checkpoint_dir("sft", "d2")
        meta = {"model_config": asdict(model.config), "tokenizer": tokenizer.identity()}
        save_checkpoint(directory, step, model.state_dict(), None, meta)
        tokenizer.save(directory / "tokenizer")

    return save


@pytest.fixture
def scripted() -> Callable[[Engine, list[int]], None]:
    """Makes an engine write these tokens, whatever it is asked (one request at a time)."""

    def follow(engine: Engine, script: list[int]) -> None:
        n_vocab = engine.tokenizer.get_vocab_size()

        def head(hidden: torch.Tensor) -> torch.Tensor:
            token = script[engine.scheduler.running[0].n_generated]
            return 10 * torch.nn.functional.one_hot(torch.tensor([token]), n_vocab).float()

        engine.model.head = head

    return follow


@pytest.fixture
def team(own_server: Callable, tmp_path: Path) -> Iterator[Callable[[str], Person]]:
    """Gives people of a server with accounts; `team.server` is the server."""
    storage = sqlite_storage(tmp_path)
    keys = add_people(storage.database)
    server = own_server(storage=storage)
    people: list[Person] = []

    def person(name: str) -> Person:
        people.append(Person(name, server.url, keys[name]))
        return people[-1]

    person.server, person.database = server, storage.database  # type: ignore[attr-defined]
    yield person
    for one in people:
        one.browser.close()


@pytest.fixture(scope="module")
def chromium() -> Iterator[Any]:
    """Chromium (`apt-get install chromium`), driven by the package playwright of the dev extra."""
    playwright = pytest.importorskip("playwright.sync_api", reason="playwright is not installed")
    if CHROMIUM is None:
        pytest.skip("no Chromium is installed: the page cannot be tried")
    with playwright.sync_playwright() as driver:
        browser = driver.chromium.launch(executable_path=CHROMIUM, args=QUIET)
        yield browser
        browser.close()


@pytest.fixture
def open_tab(chromium: Any) -> Iterator[Callable[..., Tab]]:
    """Opens tabs of browsers that share nothing; their scripts must not have failed."""
    contexts, tabs = [], []

    def open_at(url: str, worker: ScriptedWorker | None = None, **settings: Any) -> Tab:
        contexts.append(chromium.new_context(**settings))
        contexts[-1].set_default_timeout(20_000)
        tabs.append(Tab(contexts[-1].new_page(), url, worker))
        return tabs[-1]

    yield open_at
    for context in contexts:
        context.close()
    assert [tab.complaints for tab in tabs] == [[] for _ in tabs]


@pytest.fixture(scope="session")
def local_server(
    tokenizer: Tokenizer, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Running]:
    """A server without accounts that keeps conversations, over tiny models."""
    folder = tmp_path_factory.mktemp("local")
    running = start_server(tokenizer, storage=sqlite_storage(folder))
    yield running
    running.stop()


@pytest.fixture(scope="session")
def scripted_server(
    tokenizer: Tokenizer, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[tuple[Running, ScriptedWorker]]:
    """The same over a model whose answers the test writes."""
    worker = ScriptedWorker()
    folder = tmp_path_factory.mktemp("scripted")
    service = scripted_service(worker)
    running = start_server(tokenizer, service=service, storage=sqlite_storage(folder))
    yield running, worker
    running.stop()


@pytest.fixture
def tab(open_tab: Callable[..., Tab], scripted_server: tuple[Running, ScriptedWorker]) -> Tab:
    """A tab whose answers the test writes."""
    running, worker = scripted_server
    return open_tab(running.url, worker)
