"""Training that signals stop in good order, and that ends on every rank when one is lost."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from nanochat.runtime.rank_watch import Watch, say_lost
from nanochat.runtime.world import World
from nanochat.train.interrupt import Interrupt, Stopped
from nanochat.train.saving import SaveHook
from nanochat.train.trainer import Trainer


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


def fit(trainer: Trainer, saver: SaveHook, *, evaluated: bool) -> None:
    """`trainer.fit()`; Stopped is raised when a signal ended it early. `evaluated`: whether the
    evaluations of the step that a resumed run begins at had been made.
    """
    with watched(trainer.world, trainer.interrupt, saver.wait), trainer.interrupt:
        if trainer.step and (trainer.done or not evaluated):
            trainer.catch_up()
        trainer.fit()
    if trainer.interrupted:
        message = (
            f"{trainer.stop_reason}: saved and stopped after step {trainer.step}; "
            "--resume goes on from there"
        )
        if trainer.world.is_main:
            print(message, file=sys.stderr, flush=True)
        raise Stopped(message)
