"""What happens around the steps: logging, saving (saving.py), validation, CORE, samples. In that
order: a save precedes every evaluation, so that nothing an evaluation does can cost trained steps.
"""

from __future__ import annotations

import math
import sys
from collections.abc import Callable

import torch

from nanochat.dataloader.loader import PackedLoader
from nanochat.runtime.metric_log import MetricLog
from nanochat.train.saving import SaveHook
from nanochat.train.trainer import Hook, StepStats, Trainer

__all__ = ["LogHook", "PeriodicHook", "SaveHook", "ValidationHook", "is_due"]


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
            **({"loss_scale": trainer.loss_scale.scale} if trainer.loss_scale is not None else {}),
            **(
                {"micro_rows": trainer.gradients.micro_rows}
                if trainer.gradients.micro_rows is not None
                else {}
            ),
        )


class ValidationHook(Hook):
    """Bits per byte on held-out data."""

    def __init__(
        self, loader: PackedLoader, token_bytes: torch.Tensor, every: int, log: MetricLog
    ) -> None:
        self.loader, self.token_bytes, self.every, self.log = loader, token_bytes, every, log
        self.last: float | None = None
        self.best: float | None = None

    def due(self, trainer: Trainer, step: int) -> bool:
        return is_due(step, self.every, trainer.n_steps)

    def after_step(self, trainer: Trainer, stats: StepStats) -> None:
        if self.due(trainer, stats.step):
            self.evaluate(trainer)

    def evaluate(self, trainer: Trainer) -> float:
        from nanochat.eval.bpb import bits_per_byte

        batches = (batch for step in self.loader for batch in step)
        bpb = bits_per_byte(trainer.model, batches, self.token_bytes, trainer.world)
        self.last = bpb if math.isfinite(bpb) else None
        if self.last is not None:
            self.best = min(self.last, self.best if self.best is not None else math.inf)
        trainer.scores.setdefault(trainer.step, {})["val_bpb"] = self.last
        self.log.log(trainer.step, val_bpb=self.last)
        if trainer.world.is_main:
            print(f"step {trainer.step}: validation {bpb:.4f} bits per byte", file=sys.stderr)
        return bpb


class PeriodicHook(Hook):
    """Runs a function of the trainer on all ranks every so many steps: CORE, chat evaluation,
    samples.
    """

    def __init__(self, every: int, function: Callable[[Trainer], None]) -> None:
        self.every, self.function = every, function

    def due(self, trainer: Trainer, step: int) -> bool:
        return is_due(step, self.every, trainer.n_steps)

    def after_step(self, trainer: Trainer, stats: StepStats) -> None:
        if self.due(trainer, stats.step):
            self.function(trainer)
