"""What happens around the steps: logging, saving, validation, CORE, samples. In that order: a save precedes every
evaluation, so that nothing an evaluation does can cost trained steps."""

from __future__ import annotations

import math
import sys
import time
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any

import torch

from nanochat.checkpoint_manager import complete_steps, remove_step, save_checkpoint
from nanochat.dataloader.loader import PackedLoader
from nanochat.runtime.metrics import MetricLog
from nanochat.train.trainer import Hook, StepStats, Trainer


def is_due(step: int, every: int, n_steps: int) -> bool:
    """-1: only at the last step; 0: never; else every `every` steps and at the last one."""
    if every == 0:
        return False
    return step == n_steps or (every > 0 and step % every == 0)


class LogHook(Hook):
    """Every step's numbers into metrics.jsonl (and W&B when asked for)."""

    def __init__(self, log: MetricLog) -> None:
        self.log = log

    def after_step(self, trainer: Trainer, stats: StepStats) -> None:
        rate = stats.n_tokens / max(stats.seconds, 1e-9)
        self.log.log(
            stats.step,
            train_loss=stats.loss,
            grad_norm=stats.grad_norm,
            lr=stats.lr,
            n_targets=stats.n_targets,
            tokens_per_s=round(rate, 1),
            tokens_seen=trainer.tokens_seen,
            time_s=round(trainer.train_s, 3),
            skipped=stats.skipped,
        )


class SaveHook(Hook):
    """Checkpoints by step, by time and at the end, written in the background; keeps the newest few.

    `meta` gives the parts of the meta file that do not change; the trainer adds counters and data position.
    """

    def __init__(
        self, directory: Path, meta: dict[str, Any], every: int, every_s: float, keep: int, with_optimizer: bool = True
    ) -> None:
        self.directory, self.meta, self.every, self.every_s, self.keep = directory, meta, every, every_s, keep
        self.with_optimizer = with_optimizer
        self.saved_step: int | None = None
        self._last = time.monotonic()
        self._writer = ThreadPoolExecutor(max_workers=1, thread_name_prefix="save")
        self._pending: Future[Path] | None = None

    def after_step(self, trainer: Trainer, stats: StepStats) -> None:
        timed_out = trainer.world.broadcast_object(time.monotonic() - self._last >= self.every_s)
        if timed_out or trainer.done or is_due(stats.step, self.every, trainer.n_steps):
            self.save(trainer)

    def save(self, trainer: Trainer) -> None:
        """Copy the state now (collective), write it in the background (rank 0)."""
        state = trainer.state_dict()
        optimizer_state = trainer.optimizer.state_dict() if self.with_optimizer else None  # gathered from all ranks
        self._last = time.monotonic()
        if not trainer.world.is_main:
            return
        self._finish()
        model_state = {name: _copy(tensor) for name, tensor in trainer.model.state_dict().items()}
        meta = {**self.meta, "trainer": state}
        self._pending = self._writer.submit(
            save_checkpoint, self.directory, trainer.step, model_state, _copy(optimizer_state), meta
        )
        self.saved_step = trainer.step

    def at_end(self, trainer: Trainer) -> None:
        self._finish()
        self._writer.shutdown()
        trainer.world.barrier()

    def _finish(self) -> None:
        """Wait for the write under way; a failed one is a loud warning, the checkpoints before it stay."""
        if self._pending is None:
            return
        try:
            self._pending.result()
            for step in complete_steps(self.directory)[: -self.keep]:
                remove_step(self.directory, step)
        except OSError as error:
            print(f"WARNING: saving step {self.saved_step} failed ({error}); earlier checkpoints stay", file=sys.stderr)
        self._pending = None


def _copy(value: Any) -> Any:
    """Tensors copied to the CPU, through nested dicts and lists."""
    if isinstance(value, torch.Tensor):
        return value.detach().to("cpu", copy=True)
    if isinstance(value, dict):
        return {key: _copy(item) for key, item in value.items()}
    return [_copy(item) for item in value] if isinstance(value, list) else value


class ValidationHook(Hook):
    """Bits per byte on held-out data."""

    def __init__(self, loader: PackedLoader, token_bytes: torch.Tensor, every: int, log: MetricLog) -> None:
        self.loader, self.token_bytes, self.every, self.log = loader, token_bytes, every, log
        self.last: float | None = None
        self.best: float | None = None

    def after_step(self, trainer: Trainer, stats: StepStats) -> None:
        if is_due(stats.step, self.every, trainer.n_steps):
            self.evaluate(trainer)

    def evaluate(self, trainer: Trainer) -> float:
        from nanochat.eval.bpb import bits_per_byte

        batches = (batch for step in self.loader for batch in step)
        bpb = bits_per_byte(trainer.model, batches, self.token_bytes, trainer.world)
        self.last = bpb if math.isfinite(bpb) else None
        if self.last is not None:
            self.best = min(self.last, self.best if self.best is not None else math.inf)
        self.log.log(trainer.step, val_bpb=self.last)
        if trainer.world.is_main:
            print(f"step {trainer.step}: validation {bpb:.4f} bits per byte", file=sys.stderr)
        return bpb


class PeriodicHook(Hook):
    """Runs a function of the trainer on all ranks every so many steps: CORE, chat evaluation, samples."""

    def __init__(self, every: int, function: Callable[[Trainer], None]) -> None:
        self.every, self.function = every, function

    def after_step(self, trainer: Trainer, stats: StepStats) -> None:
        if is_due(stats.step, self.every, trainer.n_steps):
            self.function(trainer)
