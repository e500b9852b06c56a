"""Checkpoints while training: copied between two steps, written in the background."""

from __future__ import annotations

import math
import sys
import time
from concurrent.futures import Future, ThreadPoolExecutor
from concurrent.futures import (
    TimeoutError as SlowWrite,
)  # the built-in one only from Python 3.11 on
from pathlib import Path
from typing import Any

import torch

from nanochat.checkpoint_manager import (
    complete_steps,
    prune,
    read_meta,
    save_checkpoint,
    trained_steps,
    write_meta,
)
from nanochat.train.shard_model import full_state
from nanochat.train.trainer import Hook, StepStats, Trainer


class SaveHook(Hook):
    """Saves by step, by time, before every evaluation, when the run is stopped and at the end.

    Keeps the newest few, the best, and the newest that training has gone on from. `meta` gives the
    parts of the meta file that do not change; the trainer adds counters, positions and random
    states. `saved_step`: the newest step that was handed to the writer and not lost; `proven`: the
    newest one whose weights gave a finite loss in the step after it; `own`: all steps of this run,
    no others are ever deleted.
    """

    def __init__(
        self,
        directory: Path,
        meta: dict[str, Any],
        *,
        every: int,
        every_s: float,
        keep: int,
        with_optimizer: bool = True,
        saved_step: int | None = None,
    ) -> None:
        self.directory = directory
        self.meta = meta
        self.every = every
        self.every_s = every_s
        self.keep = keep
        self.with_optimizer = with_optimizer
        self.saved_step = saved_step
        self.proven: int | None = None
        self.own = set(trained_steps(directory))
        self.stall_s = 0.0  # time that training has waited for saving
        self._last = time.monotonic()
        self._writer = ThreadPoolExecutor(max_workers=1, thread_name_prefix="save")
        self._pending: Future[Path] | None = None
        self._snapshot = Snapshot()
        self._refused_step: int | None = None  # because it was not finite

    def asks(self, trainer: Trainer) -> bool:
        return trainer.world.is_main and time.monotonic() - self._last >= self.every_s

    def after_step(self, trainer: Trainer, stats: StepStats) -> None:
        step = stats.step
        if math.isfinite(stats.loss):
            self.proven = self.saved_step
        by_step = step == trainer.n_steps or (self.every > 0 and step % self.every == 0)
        if by_step or trainer.evaluates() or trainer.done or self in trainer.asked:
            self.save(trainer)
        elif self._pending is not None and self._pending.done():
            self._finish(trainer)

    def save(self, trainer: Trainer) -> None:
        """Copy the state now (collective), write it in the background (rank 0). A state that is not
        finite is not saved.
        """
        started = time.monotonic()
        if not trainer.healthy():
            if trainer.world.is_main and self._refused_step != trainer.step:
                print(
                    f"WARNING: step {trainer.step} is not finite and is not saved; newest "
                    f"checkpoint: step {self.saved_step}",
                    file=sys.stderr,
                    flush=True,
                )
            self._refused_step = trainer.step
            return
        state = trainer.state_dict()
        optimizer_state = (
            trainer.optimizer.state_dict() if self.with_optimizer else None
        )  # gathered from all ranks
        model_state = full_state(trainer.model, trainer.world)
        self._last = started
        if trainer.world.is_main:
            self._finish(trainer)
            copied = self._snapshot.take({"model": model_state, "optimizer": optimizer_state})
            arguments = (copied["model"], copied["optimizer"], {**self.meta, "trainer": state})
            self._pending = self._writer.submit(
                save_checkpoint, self.directory, trainer.step, *arguments
            )
        self.saved_step = trainer.step
        self.own.add(trainer.step)
        if trainer.step == trainer.n_steps:  # tried out just now
            self.proven = trainer.step
        self.stall_s += time.monotonic() - started

    def at_end(self, trainer: Trainer) -> None:
        """Save what is not saved yet and wait for it.

        Raises ValueError on all ranks when the last step is not finite, or its save fails.
        """
        agree = trainer.world.broadcast_object  # only rank 0 knows of failed writes
        if agree(self.saved_step != trainer.step):
            self.save(trainer)
        if agree(not self._finish(trainer)):  # perhaps there is room now; this one must not be lost
            if trainer.world.is_main:
                self._prune(1)
            self.save(trainer)
            self._finish(trainer)
        self._writer.shutdown()
        if agree(self.saved_step) == trainer.step or trainer.interrupted:
            return
        complete = f"complete steps: {complete_steps(self.directory) or 'none'}"
        if not trainer.healthy():
            raise ValueError(
                f"{self.directory}: the run ended in a step that is not finite, so step "
                f"{trainer.step} is not saved; {complete}. Lower --matrix-lr and --embedding-lr, "
                "or look at the data"
            )
        raise ValueError(
            f"{self.directory}: step {trainer.step} could not be saved; {complete}. Free disk "
            "space and go on with --resume"
        )

    def settle(self, trainer: Trainer, timeout_s: float = 120.0) -> None:
        """Before the process is ended for another reason: let the write under way end, and mark a
        checkpoint from which training only diverged. From any thread.
        """
        try:
            if self._pending is not None:
                self._pending.result(timeout_s)
            if trainer.world.is_main and trainer.diverged and self.saved_step != self.proven:
                self._mark_diverged(trainer)
        except (OSError, RuntimeError, SlowWrite) as error:
            print(f"WARNING: saving step {self.saved_step} failed ({error})", file=sys.stderr)

    def _mark_diverged(self, trainer: Trainer) -> None:
        """`--resume` and chat then take the newest checkpoint before it; its files stay."""
        assert self.saved_step is not None
        meta = read_meta(self.directory, self.saved_step)
        write_meta(self.directory, self.saved_step, {**meta, "diverged": True})
        print(
            f"WARNING: training diverged from step {self.saved_step} on, which is no longer taken "
            f"for complete; complete steps: {complete_steps(self.directory) or 'none'}",
            file=sys.stderr,
            flush=True,
        )

    def _prune(self, keep: int) -> None:
        prune(self.directory, keep, self.own, spare=self.proven)

    def _finish(self, trainer: Trainer) -> bool:
        """Wait for the write under way -> False when it failed: a loud warning, the checkpoints
        before it stay.
        """
        if self._pending is None:
            return True
        pending, self._pending = self._pending, None
        try:
            pending.result()
            self._note_evaluations(trainer)
            self._prune(self.keep)
        except OSError as error:
            print(
                f"WARNING: saving step {self.saved_step} failed ({error}); training goes on, "
                "complete steps: "
                f"{complete_steps(self.directory) or 'none'}",
                file=sys.stderr,
                flush=True,
            )
            self.saved_step = None
            return False
        return True

    def _note_evaluations(self, trainer: Trainer) -> None:
        """Put the results of a step's evaluations, made after its save, into its meta file."""
        step = self.saved_step
        if step is not None and step in trainer.scores.keys() | trainer.evaluated:
            noted = {**trainer.scores.get(step, {}), "evaluated": step in trainer.evaluated}
            write_meta(self.directory, step, {**read_meta(self.directory, step), **noted})


class Snapshot:
    """Copies of nested tensors in main memory. The memory is kept from one copy to the next: fresh
    pages cost more time than the copying itself.
    """

    def __init__(self) -> None:
        self._buffers: dict[tuple[Any, ...], torch.Tensor] = {}

    def take(self, value: Any) -> Any:
        """A copy of `value`, valid until the next one is taken."""
        copied = self._copy(value, ())
        if torch.cuda.is_available():
            torch.cuda.synchronize()
        return copied

    def _copy(self, value: Any, key: tuple[Any, ...]) -> Any:
        if isinstance(value, torch.Tensor):
            kept = self._buffers.get(key)
            if kept is None or kept.shape != value.shape or kept.dtype != value.dtype:
                kept = self._buffers[key] = torch.empty(
                    value.shape, dtype=value.dtype, pin_memory=value.is_cuda
                )
            return kept.copy_(value.detach(), non_blocking=True)
        if isinstance(value, dict):
            return {name: self._copy(item, (*key, name)) for name, item in value.items()}
        if isinstance(value, (list, tuple)):
            return [self._copy(item, (*key, number)) for number, item in enumerate(value)]
        return value
