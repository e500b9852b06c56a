"""SIGTERM, SIGINT and SIGUSR1 during a run: save and stop, on all ranks together.

The training loop asks at every step. Evaluation, sampling and rollouts can take minutes, so while
they run the signal raises `StopRequested` in them at once (they change nothing that is saved), and
their collectives first agree on whether to go on: a rank that was interrupted takes part in one
agreement, the others leave at theirs.
"""

from __future__ import annotations

import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, fields
from types import FrameType, TracebackType
from typing import Any

import torch

from nanochat.runtime.world import World

EXIT_STOPPED = 75  # EX_TEMPFAIL: not finished, saved, start me again
SIGNALS = ("SIGTERM", "SIGINT", "SIGUSR1")
SAME_KEYPRESS_S = (
    0.5  # torchrun passes Ctrl+C on to workers that the terminal has already sent it to
)


class StopRequested(BaseException):
    """Raised inside work that may be given up. Not an Exception, so that nothing swallows it."""

    agreed = False  # whether the other ranks know


class Stopped(SystemExit):
    """The run has saved and stopped as asked; ends the process with EXIT_STOPPED."""

    def __init__(self, message: str) -> None:
        super().__init__(EXIT_STOPPED)
        self.message = message


class Interrupt:
    """A context manager that turns signals into requests to stop. `requested` is the signal's name,
    or None.
    """

    def __init__(self, world: World) -> None:
        self.world = world
        self.requested: str | None = None
        self._open = False  # inside work that a request may break off
        self._closed = 0  # inside a collective of it, which must not be torn apart
        self._at = 0.0
        self._previous: dict[int, Any] = {}

    def __enter__(self) -> Interrupt:
        if threading.current_thread() is threading.main_thread():  # no other may have handlers
            numbers = [getattr(signal, name) for name in SIGNALS if hasattr(signal, name)]
            self._previous = {number: signal.signal(number, self._on_signal) for number in numbers}
        return self

    def __exit__(
        self, kind: type | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for number, handler in self._previous.items():
            signal.signal(number, handler if handler is not None else signal.SIG_DFL)
        self._previous = {}

    def request(self, why: str) -> None:
        """Ask to stop (from this process's own code)."""
        self.requested = self.requested or why

    def poke(self) -> None:
        """Ask to stop, from another thread of this process."""
        signal.pthread_kill(threading.main_thread().ident or 0, signal.SIGUSR1)

    def _on_signal(self, number: int, frame: FrameType | None) -> None:
        now = time.monotonic()
        if number == signal.SIGINT and self.requested and now - self._at > SAME_KEYPRESS_S:
            signal.signal(signal.SIGINT, signal.default_int_handler)
            raise KeyboardInterrupt
        if self.requested is None:
            self._at, self.requested = now, signal.Signals(number).name
            if self.world.is_main:
                again = (
                    "; Ctrl+C again stops at once, without saving"
                    if number == signal.SIGINT
                    else ""
                )
                print(
                    f"\n{self.requested}: saving and stopping{again}", file=sys.stderr, flush=True
                )
        self._raise_if_open()

    def _raise_if_open(self) -> None:
        if self.requested and self._open and not self._closed:
            self._open = False
            raise StopRequested

    @contextmanager
    def window(self) -> Iterator[None]:
        """Inside, a request raises StopRequested at once, also one that is already there."""
        self._open = True
        try:
            self._raise_if_open()
            yield
        finally:
            self._open = False

    @contextmanager
    def closed(self) -> Iterator[None]:
        """Inside, nothing is raised; a request that came meanwhile is raised on leaving."""
        self._closed += 1
        try:
            yield
        finally:
            self._closed -= 1
        self._raise_if_open()

    def agree(self) -> bool:
        """Whether any rank has been asked to stop. A collective."""
        if self.world.world_size == 1:
            return self.requested is not None
        with self.closed():
            asked = torch.tensor([float(self.requested is not None)], device=self.world.device)
            any_asked = float(self.world.all_reduce_sum(asked)) > 0
        if any_asked:
            self.request("another rank's signal")
        return any_asked

    def run(self, work: Callable[..., Any], *arguments: Any) -> bool:
        """Call `work(*arguments)`, given up when any rank is asked to stop -> whether it was. Same
        calls on all ranks.

        Collectives inside must go through `guarded()`.
        """
        try:
            with self.window():
                work(*arguments)
        except StopRequested as stop:
            if stop.agreed:
                return True
        return self.agree()

    def guarded(self) -> World:
        """This run's World for work inside `run`."""
        if self.world.world_size == 1:
            return self.world
        own = {item.name: getattr(self.world, item.name) for item in fields(self.world)}
        return GuardedWorld(**own, interrupt=self)


@dataclass
class GuardedWorld(World):
    """A World whose collectives agree on going on before each one."""

    interrupt: Interrupt = field(default=None, repr=False)  # type: ignore[assignment]

    def _go_on(self) -> None:
        if self.interrupt.agree():
            stop = StopRequested()
            stop.agreed = True
            raise stop

    def barrier(self) -> None:
        with self.interrupt.closed():
            self._go_on()
            super().barrier()

    def all_reduce_sum(self, tensor: torch.Tensor) -> torch.Tensor:
        with self.interrupt.closed():
            self._go_on()
            return super().all_reduce_sum(tensor)

    def broadcast_object(self, obj: Any) -> Any:
        with self.interrupt.closed():
            self._go_on()
            return super().broadcast_object(obj)

    def gather_objects(self, obj: Any) -> list[Any]:
        with self.interrupt.closed():
            self._go_on()
            return super().gather_objects(obj)
