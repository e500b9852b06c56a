"""THE training loop. Stages differ in what they put in: model, source of batches, optimizer, schedule, hooks.

loss = sum over targets / global count of targets, so micro-batches and ranks never change the result; a step without
targets changes nothing. Evaluation, sampling, saving and logging are hooks.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import torch
from torch import Tensor

from nanochat.dataloader.loader import Batch
from nanochat.gpt import GPT
from nanochat.optim.optimizer import Optimizer
from nanochat.optim.schedule import Schedule
from nanochat.runtime.progress import Progress
from nanochat.runtime.world import World
from nanochat.train.objective import loss_sum_and_count


class Source(Protocol):
    """Where batches come from: shards, conversations or rollouts."""

    def next_step(self) -> list[Batch]: ...
    def state_dict(self) -> dict[str, Any]: ...
    def load_state_dict(self, states: dict[str, Any] | Sequence[dict[str, Any]]) -> None: ...


@dataclass
class StepStats:
    """What one optimizer step did, the same on every rank."""

    step: int
    loss: float
    grad_norm: float
    lr: float
    n_targets: int
    n_tokens: int
    seconds: float
    skipped: bool = False


class Hook:
    """Something done around the steps. `due` is asked after every step; `run` may not change the model."""

    def after_step(self, trainer: Trainer, stats: StepStats) -> None:
        """Called on every rank after each step, in the order of the hooks."""

    def at_end(self, trainer: Trainer) -> None:
        """Called once when training is over."""


class Trainer:
    """Runs `n_steps` optimizer steps of `source` on `model`, from `step` on."""

    def __init__(
        self,
        model: GPT,
        source: Source,
        optimizer: Optimizer,
        schedule: Schedule,
        world: World,
        hooks: Sequence[Hook] = (),
        *,
        grad_clip: float = 0.0,
        hidden_fn: Callable[[Tensor], Tensor] | None = None,
        max_bad_steps: int = 5,
        description: str = "train",
    ) -> None:
        self.model, self.source, self.optimizer, self.schedule, self.world = model, source, optimizer, schedule, world
        self.hooks, self.grad_clip, self.max_bad_steps = list(hooks), grad_clip, max_bad_steps
        self.description = description
        self.hidden_fn = hidden_fn or model.hidden
        self.step = 0  # steps done
        self.train_s = 0.0  # time in steps, without hooks
        self.tokens_seen = 0
        self.n_bad_steps = 0
        self.stop_reason: str | None = None

    @property
    def n_steps(self) -> int:
        return self.schedule.n_steps

    @property
    def done(self) -> bool:
        return self.step >= self.n_steps or self.stop_reason is not None

    def fit(self) -> None:
        """Train to the end, or until a hook sets `stop_reason`."""
        with Progress(self.n_steps, self.description, enabled=self.world.is_main) as progress:
            progress.done = self.step
            while not self.done:
                stats = self.train_step()
                for hook in self.hooks:
                    hook.after_step(self, stats)
                progress.advance(1, loss=stats.loss, tok_s=round(stats.n_tokens / max(stats.seconds, 1e-9)))
        for hook in self.hooks:
            hook.at_end(self)

    def train_step(self) -> StepStats:
        """One optimizer step over this rank's micro-batches."""
        started = time.perf_counter()
        batches = [batch.to(self.world.device) for batch in self.source.next_step()]
        counts = torch.zeros(2, dtype=torch.float64)
        counts[0] = sum(int((batch.weights != 0).sum()) for batch in batches)
        counts[1] = sum(batch.targets.numel() for batch in batches)
        n_targets, n_tokens = (int(count) for count in self.world.all_reduce_sum(counts.to(self.world.device)).tolist())
        loss_sum = torch.zeros((), dtype=torch.float32, device=self.world.device)
        for batch in batches:
            total, _ = loss_sum_and_count(self.model, batch, self.hidden_fn)
            loss = total / max(n_targets, 1)
            loss.backward()
            loss_sum += loss.detach()
        grads = self.optimizer.reduce_gradients()  # this rank's parts of the sum over ranks
        loss_value = float(self.world.all_reduce_sum(loss_sum))
        grad_norm = self.optimizer.grad_norm()
        bad = not (math.isfinite(loss_value) and math.isfinite(grad_norm))
        lr = self.schedule.lr(self.step)
        if not bad and n_targets:
            if self.grad_clip and grad_norm > self.grad_clip:
                torch._foreach_mul_(grads, self.grad_clip / (grad_norm + 1e-6))
            decay = self.schedule.weight_decay(self.step)
            self.optimizer.step(lr, self.schedule.muon_momentum(self.step), decay)
        self.optimizer.zero_grad()
        self.step += 1
        self.tokens_seen += n_tokens
        self._count_bad_step(bad, loss_value, grad_norm)
        seconds = time.perf_counter() - started
        self.train_s += seconds
        return StepStats(self.step, loss_value, grad_norm, lr, n_targets, n_tokens, seconds, skipped=bad)

    def _count_bad_step(self, bad: bool, loss: float, grad_norm: float) -> None:
        """Skipped steps are forgiven until `max_bad_steps` of them come in a row."""
        self.n_bad_steps = self.n_bad_steps + 1 if bad else 0
        if bad and self.n_bad_steps >= self.max_bad_steps:
            raise ValueError(
                f"step {self.step}: loss {loss} and gradient norm {grad_norm} were not finite for {self.n_bad_steps} "
                "steps in a row; lower --matrix-lr and --embedding-lr, or look at the data; "
                "the last checkpoint is from before and can be resumed"
            )

    def state_dict(self) -> dict[str, Any]:
        """Counters and the data position of every rank; plain JSON values. Call it on all ranks."""
        return {
            "step": self.step,
            "train_s": self.train_s,
            "tokens_seen": self.tokens_seen,
            "source": self.world.gather_objects(self.source.state_dict()),
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.step, self.train_s, self.tokens_seen = state["step"], state["train_s"], state["tokens_seen"]
        self.source.load_state_dict(state["source"])
