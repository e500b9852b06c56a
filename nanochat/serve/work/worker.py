"""A worker: one engine, stepped in its own thread, that reports what it writes."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable
from typing import Protocol

from nanochat.engine import Engine, EngineStats, Event, SamplingParams
from nanochat.engine.finite import NonFiniteLogits, checkpoint_named
from nanochat.engine.sequence import FinishReason
from nanochat.serve.work.remote import RemotePrompt

log = logging.getLogger(__name__)
STOP_TIME_S = 10.0

Deliver = Callable[[list[Event]], None]
Lost = Callable[[str], None]


class Worker(Protocol):
    """Something that answers prompts. `deliver` is called from a thread of the worker's own; its
    events carry the number the prompt was submitted with. `lost`: nothing more will come of what
    was submitted so far, and why.
    """

    index: int

    def start(self, deliver: Deliver, lost: Lost) -> None: ...

    def submit(
        self, request: int, prompt: list[int] | RemotePrompt, params: SamplingParams, n: int
    ) -> None: ...

    def cancel(self, request: int, reason: FinishReason, detail: str) -> None: ...

    def stats(self) -> EngineStats | None: ...

    def stop(self) -> None: ...

    @property
    def alive(self) -> bool: ...


class ThreadWorker:
    """A worker in this process. `submit`, `cancel` and `stats` may be called from any thread.
    `name` is the checkpoint's, for messages.
    """

    def __init__(self, engine: Engine, name: str = "the model", index: int = 0) -> None:
        self.engine = engine
        self.name = name
        self.index = index
        self._wake = threading.Event()
        self._stopping = False
        self._thread: threading.Thread | None = None

    def start(self, deliver: Deliver, lost: Lost) -> None:
        self._thread = threading.Thread(
            target=self.run, args=(deliver,), name=f"engine-{self.index}", daemon=True
        )
        self._thread.start()

    @property
    def alive(self) -> bool:
        return self._thread is not None and self._thread.is_alive()

    def submit(
        self, request: int, prompt: list[int] | RemotePrompt, params: SamplingParams, n: int
    ) -> None:
        assert isinstance(prompt, list), "an engine here takes token ids"
        self.engine.submit(prompt, params, n, request_id=request)
        self._wake.set()

    def cancel(self, request: int, reason: FinishReason, detail: str) -> None:
        self.engine.cancel(request, reason, detail)
        self._wake.set()

    def stats(self) -> EngineStats | None:
        return self.engine.stats()

    def stop(self) -> None:
        """End the loop after the step it is in, and wait for that."""
        self._stopping = True
        self._wake.set()
        if self._thread is not None and self._thread is not threading.current_thread():
            self._thread.join(timeout=STOP_TIME_S)

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
                with checkpoint_named(self.name):
                    events = self.engine.step()
            except NonFiniteLogits as error:
                log.error("%s; its running requests end", error)
                events = self.engine.fail_all(str(error))
            except Exception as error:
                log.exception("%s: the engine failed; its running requests end", self.name)
                reason = f"{self.name}: the engine failed: {type(error).__name__}"
                events = self.engine.fail_all(reason)
            if events:
                deliver(events)
