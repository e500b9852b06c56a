"""Finding out which rank died or hangs, and telling all ranks of a stop request that only one of
them received.

Collectives wait for a missing rank until their own timeout and then do not say who it was. A thread
in every rank writes a heartbeat to the run's key-value store and reads the others'.
"""

from __future__ import annotations

import contextlib
import os
import sys
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from concurrent.futures import TimeoutError as NoAnswer  # the built-in one only from Python 3.11 on
from typing import Any

from nanochat.runtime.errors import reason
from nanochat.runtime.variables import read_variable
from nanochat.runtime.world import World

EXIT_LOST_RANK = 76  # another rank is gone: start the run again from its last checkpoint
GRACE_S = 5.0  # for the main thread to end by itself once a rank is known to be lost
PREFIX = "nanochat-watch"


class LostRank(SystemExit):
    """Another rank died, hangs or failed; ends the process with EXIT_LOST_RANK."""

    def __init__(self, message: str) -> None:
        super().__init__(EXIT_LOST_RANK)
        self.message = message


class Watch:
    """Context manager around work that all ranks do together. Does nothing with a single process.

    limit_s: silence after which a rank counts as lost (default: $NANOCHAT_HEARTBEAT_S or 60).
    asked: this rank's stop request, or None; on_ask: called in the thread when another rank has
    one; on_lost: called before the process ends.
    """

    def __init__(
        self,
        world: World,
        asked: Callable[[], str | None] = lambda: None,
        on_ask: Callable[[], None] = lambda: None,
        on_lost: Callable[[], None] = lambda: None,
        limit_s: float | None = None,
    ) -> None:
        self.world = world
        self.asked = asked
        self.on_ask = on_ask
        self.on_lost = on_lost
        self.limit_s = limit_s or read_variable("NANOCHAT_HEARTBEAT_S", 60.0)
        self.every_s = min(2.0, self.limit_s / 4)
        self.verdict: str | None = None
        self._ended, self._found = threading.Event(), threading.Event()
        self._thread: threading.Thread | None = None
        self._told = self._said = False

    def __enter__(self) -> Watch:
        if self.world.world_size > 1:
            try:
                self.world.barrier()  # all start counting together
                self._store = _own_store(self.limit_s)
            except RuntimeError as error:
                verdict = f"a rank was lost before the work began ({reason(error)})"
                say_lost(verdict, self.world.rank)
                raise LostRank(verdict) from None
            self._seen = {rank: (b"", time.monotonic()) for rank in range(self.world.world_size)}
            self._thread = threading.Thread(target=self._run, name="watch", daemon=True)
            self._thread.start()
        return self

    def __exit__(self, kind: type | None, error: BaseException | None, trace: object) -> None:
        if self._found.is_set() or isinstance(error, RuntimeError):
            # leaving may block on the lost rank: the thread then ends the process, or `explain`
            # ends the thread
            return
        self._end()

    def _end(self) -> None:
        self._ended.set()
        if self._thread is not None:
            self._thread.join(timeout=2 * self.every_s)

    def fail(self, error: BaseException) -> None:
        """Tell the others why this rank is about to end."""
        if self._thread is not None:
            with contextlib.suppress(RuntimeError):  # the store may be what is gone
                self._store.set(f"{PREFIX}/failed", f"rank {self.world.rank} failed: {error}")

    def explain(self, error: RuntimeError) -> BaseException:
        """What to raise for a failed collective: LostRank naming the rank when one is lost, else
        the error itself.
        """
        if self._thread is None or not self._found.wait(2 * self.limit_s + self.every_s):
            self._end()
            return error
        self._said = True
        return LostRank(f"{self.verdict} ({reason(error)})")

    def _run(self) -> None:
        beats, asking = 0, ThreadPoolExecutor(max_workers=1, thread_name_prefix="watch-store")
        while not self._ended.wait(self.every_s):
            beats += 1
            try:  # with a stopped rank 0 a request to its store never returns, whatever its timeout
                self.verdict = asking.submit(self._beat, beats).result(self.limit_s)
            except (RuntimeError, NoAnswer) as error:
                self.verdict = (
                    f"rank 0 or its launcher, where the ranks meet, died or hangs ({reason(error)})"
                )
            if self.verdict is not None:
                break
        if self.verdict is None or self._ended.is_set():
            asking.shutdown(wait=False)
            return
        self._found.set()
        if self._ended.wait(GRACE_S):
            return
        if not self._said:
            say_lost(self.verdict, self.world.rank)
        self.on_lost()
        os._exit(EXIT_LOST_RANK)  # the main thread sits in a collective that nothing else can end

    def _beat(self, beats: int) -> str | None:
        """Write this rank's heartbeat, read the others' -> what is lost, or None."""
        store, now = self._store, time.monotonic()
        store.set(f"{PREFIX}/beat/{self.world.rank}", str(beats))
        if self.asked() is not None:
            store.set(f"{PREFIX}/stop", str(self.asked()))
        elif not self._told and store.check([f"{PREFIX}/stop"]):
            self._told = True
            self.on_ask()
        if store.check([f"{PREFIX}/failed"]):
            return store.get(f"{PREFIX}/failed").decode(errors="replace")
        for rank, (last, since) in self._seen.items():
            key = f"{PREFIX}/beat/{rank}"
            beat = store.get(key) if store.check([key]) else b""
            if rank == self.world.rank or beat != last:
                self._seen[rank] = (beat, now)
            elif now - since > self.limit_s:
                verdict = f"rank {rank} has not answered for {now - since:.0f} s: it died or hangs"
                store.set(f"{PREFIX}/failed", verdict)
                return verdict
        return None


def say_lost(verdict: str, rank: int) -> None:
    print(
        f"error (rank {rank}): {verdict}; stopping. Start again with --resume: it goes on from "
        "the last checkpoint",
        file=sys.stderr,
        flush=True,
    )


def _own_store(limit_s: float) -> Any:
    """A connection of our own to the run's store: the main one may be busy in the main thread."""
    from datetime import timedelta

    import torch.distributed as dist

    store: Any = dist.distributed_c10d._get_default_store()
    store = store.clone()
    store.set_timeout(timedelta(seconds=limit_s))
    return store
