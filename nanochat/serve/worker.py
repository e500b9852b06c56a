"""A worker: one engine, stepped in its own thread, that reports what it writes."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

from nanochat.engine import Engine, EngineStats, Event, Request, SamplingParams

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Update:
    """What became known about one sample of the prompt submitted as `key`: an engine's Event as
    plain values.

    `pieces` are (kind, text) with kind text, python or python_output. `reused` counts the prompt
    tokens that came from the cache. The last update of a sample has a `finish_reason`.
    """

    key: int
    sample: int
    token: int | None = None
    mask: int = 1
    pieces: tuple[tuple[str, str], ...] = ()
    logprob: float | None = None
    top: tuple[tuple[int, float], ...] = ()
    finish_reason: str | None = None
    finish_detail: str = ""
    reused: int = 0


Deliver = Callable[[list[Update]], None]


class Worker(Protocol):
    """Something that answers prompts. `deliver` is called from a thread of the worker's own."""

    index: int

    def start(self, deliver: Deliver) -> None: ...

    def submit(self, key: int, prompt: list[int], params: SamplingParams, n: int) -> None: ...

    def cancel(self, key: int) -> None: ...

    def stats(self) -> EngineStats | None: ...

    def stop(self) -> None: ...

    @property
    def alive(self) -> bool: ...


class ThreadWorker:
    """A worker in this process. `submit`, `cancel` and `stats` may be called from any thread."""

    def __init__(self, engine: Engine, index: int = 0) -> None:
        self.engine, self.index = engine, index
        self._requests: dict[int, Request] = {}
        self._keys: dict[Request, int] = {}
        self._lock = threading.Lock()
        self._wake = threading.Event()
        self._stopping = False
        self._thread: threading.Thread | None = None

    def start(self, deliver: Deliver) -> None:
        self._thread = threading.Thread(
            target=self.run, args=(deliver,), name=f"engine-{self.index}", daemon=True
        )
        self._thread.start()

    @property
    def alive(self) -> bool:
        return self._thread is not None and self._thread.is_alive()

    def submit(self, key: int, prompt: list[int], params: SamplingParams, n: int) -> None:
        with self._lock:  # the engine may write the first token before the request is filed
            request = self.engine.submit(prompt, params, n)
            self._requests[key], self._keys[request] = request, key
        self._wake.set()

    def cancel(self, key: int) -> None:
        with self._lock:
            request = self._requests.get(key)
        if request is not None:
            self.engine.cancel(request)
            self._wake.set()

    def stats(self) -> EngineStats | None:
        return self.engine.stats()

    def stop(self) -> None:
        """End the loop after the step it is in, and wait for that."""
        self._stopping = True
        self._wake.set()
        if self._thread is not None and self._thread is not threading.current_thread():
            self._thread.join(timeout=10)

    def run(self, deliver: Deliver) -> None:
        """Step while there is work, sleep while there is none. A step that raises answers its
        requests with an error and leaves the engine usable for the next ones.
        """
        while not self._stopping:
            self._wake.clear()
            if not self.engine.has_work:
                self._wake.wait()
                continue
            try:
                events = self.engine.step()
            except Exception as error:
                log.exception("the engine failed; its running requests end with an error")
                events = self.engine.fail_all(f"the engine failed: {type(error).__name__}")
            if events:
                deliver(self._updates(events))

    def _updates(self, events: list[Event]) -> list[Update]:
        with self._lock:
            updates = [update_of(self._keys[event.request], event) for event in events]
            for request in {event.request for event in events}:
                request.events.clear()
                if request.finished:
                    del self._requests[self._keys.pop(request)]
        return updates


def update_of(key: int, event: Event) -> Update:
    return Update(
        key,
        event.sample,
        event.token,
        event.mask,
        tuple((piece.kind, piece.text) for piece in event.pieces),
        event.logprob,
        event.top,
        event.finish_reason,
        event.finish_detail,
        event.request.samples[event.sample].sequence.n_reused,
    )
