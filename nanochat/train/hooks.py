"""What stages put around their steps: the log, validation, CORE, samples. (Saving: saving.py.)"""

from __future__ import annotations

import math
import sys
from collections.abc import Mapping, Sequence
from typing import Any

from torch import Tensor

from nanochat.dataloader.loader import PackedLoader
from nanochat.gpt import GPT
from nanochat.runtime.metric_log import MetricLog
from nanochat.runtime.world import World
from nanochat.tokenizer import Tokenizer
from nanochat.train.samples import sample_texts
from nanochat.train.trainer import Hook, StepStats, Trainer


class LogHook(Hook):
    """Every step's numbers into metrics.jsonl (and W&B when asked for).

    `lr` is the learning rate of the matrices, `lr_NAME` those of the others, `lr_frac` the share of
    the full ones. `mfu`: share of the chips' `peak_flops` (per second, all of them) that the model
    used, where both are known; the work of a token is `token_flops`.
    """

    def __init__(
        self, log: MetricLog, token_flops: float = 0.0, peak_flops: float | None = None
    ) -> None:
        self.log = log
        self.token_flops = token_flops
        self.peak_flops = peak_flops

    def after_step(self, trainer: Trainer, stats: StepStats) -> None:
        rate = stats.n_tokens / max(stats.seconds, 1e-9)
        mfu = None
        if self.peak_flops and self.token_flops:
            mfu = round(rate * self.token_flops / self.peak_flops, 4)
        changing = {
            "mfu": mfu,
            "loss_scale": None if trainer.loss_scale is None else trainer.loss_scale.scale,
            "device_batch_size": trainer.gradients.device_batch_size,
        }
        self.log.log(
            stats.step,
            train_loss=stats.loss,
            grad_norm=stats.grad_norm,
            lr_frac=stats.lr_frac,
            **{"lr" if name == "matrices" else f"lr_{name}": lr for name, lr in stats.lr.items()},
            n_targets=stats.n_targets,
            tokens_per_s=round(rate, 1),
            tokens_seen=trainer.tokens_seen,
            time_s=round(trainer.train_s, 3),
            skipped=stats.skipped,
            **{name: value for name, value in changing.items() if value is not None},
        )


class PeriodicHook(Hook):
    """Evaluates every `every` steps and after the last one; -1: only after the last; 0: never."""

    def __init__(self, every: int) -> None:
        self.every = every

    def due(self, step: int, n_steps: int) -> bool:
        if self.every == 0:
            return False
        return step == n_steps or (self.every > 0 and step % self.every == 0)


class ValidationHook(PeriodicHook):
    """Bits per byte on held-out data."""

    def __init__(
        self, loader: PackedLoader, token_bytes: Tensor, every: int, log: MetricLog
    ) -> None:
        super().__init__(every)
        self.loader = loader
        self.token_bytes = token_bytes
        self.log = log
        self.last: float | None = None
        self.best: float | None = None

    @property
    def scores(self) -> dict[str, float | None]:
        return {"val_bpb": self.last, "min_val_bpb": self.best}

    def recall(self, history: Sequence[Mapping[str, Any]]) -> None:
        """Take the last and the best score from the log of the part of the run before a resume."""
        scores = [row["val_bpb"] for row in history if row.get("val_bpb") is not None]
        if scores:
            self.last = scores[-1]
            self.best = min(scores)

    def evaluate(self, trainer: Trainer, model: GPT, world: World) -> None:
        from nanochat.eval.bpb import bits_per_byte

        batches = (batch for step in self.loader for batch in step)
        bpb = bits_per_byte(model, batches, self.token_bytes, world)
        self.last = bpb if math.isfinite(bpb) else None
        if self.last is not None:
            self.best = min(self.last, self.best if self.best is not None else math.inf)
        trainer.scores.setdefault(trainer.step, {})["val_bpb"] = self.last
        self.log.log(trainer.step, val_bpb=self.last)
        if world.is_main:
            print(f"step {trainer.step}: validation {bpb:.4f} bits per byte", file=sys.stderr)


class SampleHook(PeriodicHook):
    """A few greedy completions, printed and logged; `samples` holds the newest."""

    def __init__(
        self,
        tokenizer: Tokenizer,
        prompts: Sequence[str],
        every: int,
        log: MetricLog,
        *,
        chat: bool,
    ) -> None:
        super().__init__(every)
        self.log = log
        self.tokenizer = tokenizer
        self.prompts = prompts
        self.chat = chat
        self.samples: list[dict[str, str]] = []

    def evaluate(self, trainer: Trainer, model: GPT, world: World) -> None:
        if not world.is_main:
            return
        self.samples = sample_texts(model, self.tokenizer, self.prompts, chat=self.chat)
        self.log.log(trainer.step, samples=self.samples)
        for sample in self.samples:
            print(f"  {sample['prompt']} -> {sample['completion']!r}", flush=True)


class CoreHook(PeriodicHook):
    """The CORE score, with at most `per_task` questions of each task. Left out with a warning where
    its data is not there.
    """

    def __init__(self, tokenizer: Tokenizer, every: int, per_task: int, log: MetricLog) -> None:
        super().__init__(max(every, 0))
        self.tokenizer = tokenizer
        self.per_task = per_task
        self.log = log

    def evaluate(self, trainer: Trainer, model: GPT, world: World) -> None:
        from nanochat.eval.base_eval import core_metric

        value = core_metric(model, self.tokenizer, world, self.per_task)
        if value is not None:
            trainer.scores.setdefault(trainer.step, {})["core_metric"] = value
            self.log.log(trainer.step, core_metric=value)
