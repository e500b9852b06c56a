"""A worker: one engine, stepped in its own thread, that reports what it writes."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable
from typing import Protocol

from nanochat.engine import Engine, EngineStats, Event, SamplingParams

log = logging.getLogger(__name__)


Deliver = Callable[[list[Event]], None]


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
        self.engine.submit(prompt, params, n, request_id=key)
        self._wake.set()

    def cancel(self, key: int) -> None:
        self.engine.cancel(key)
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
                deliver(events)
