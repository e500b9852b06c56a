"""Collectives that end on every rank, in a bounded time, when one rank is lost."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager

from nanochat.runtime.rank_watch import Watch, say_lost
from nanochat.runtime.world import World
from nanochat.train.interrupt import Interrupt


@contextmanager
def watched(
    world: World, interrupt: Interrupt, settle: Callable[[], None] = lambda: None
) -> Iterator[None]:
    """Around collectives: a rank that dies, hangs or fails is named, and all end within a bounded
    time, after `settle`.
    """
    watch = Watch(world, lambda: interrupt.requested, interrupt.poke, settle)
    try:
        with watch:
            yield
    except RuntimeError as error:  # a collective, broken by another rank's end, or our own fault
        cause = watch.explain(error)
        settle()
        if cause is error:
            watch.fail(error)
            raise
        say_lost(str(watch.verdict), world.rank)
        raise cause from None
    except Exception as error:
        watch.fail(error)
        settle()
        raise
