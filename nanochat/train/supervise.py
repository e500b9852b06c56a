"""Training that signals stop in good order, and that ends on every rank when one is lost."""

from __future__ import annotations

import sys

from nanochat.train.interrupt import Stopped
from nanochat.train.resume import Resumed
from nanochat.train.saving import SaveHook
from nanochat.train.trainer import Trainer
from nanochat.train.watched import watched


def fit(trainer: Trainer, saver: SaveHook, resumed: Resumed) -> None:
    """`trainer.fit()`, before it the evaluations that the stopped part of a run had not made.

    Raises Stopped when a signal ended it early.
    """

    def settle() -> None:
        saver.settle(trainer)

    with watched(trainer.world, trainer.interrupt, settle), trainer.interrupt:
        if trainer.step and (trainer.done or not resumed.evaluated):
            trainer.catch_up()
        trainer.fit()
    if trainer.interrupted:
        message = f"{trainer.stop_reason}: saved and stopped after step {trainer.step}"
        if saver.saved_step != trainer.step:
            message = f"{trainer.stop_reason}: stopped after step {trainer.step}, not finite"
        message += "; --resume goes on from the last checkpoint"
        if trainer.world.is_main:
            print(message, file=sys.stderr, flush=True)
        raise Stopped(message)
