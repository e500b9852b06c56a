"""THE training loop. Stages differ in what they put in: model, source of batches, optimizer,
schedule, hooks.

loss = sum over targets / global count of targets, so micro-batches and ranks never change the
result; a step without targets changes nothing. Evaluation, sampling, saving and logging are hooks.
"""

from __future__ import annotations

import math
import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import torch
from torch import Tensor

from nanochat.dataloader.loader import Batch
from nanochat.gpt import GPT
from nanochat.optim.optimizer import Optimizer
from nanochat.optim.schedule import Schedule
from nanochat.runtime.progress import Progress
from nanochat.runtime.rng import rng_state, set_rng_state
from nanochat.runtime.world import World
from nanochat.train.compiled import ForwardPass
from nanochat.train.gradients import Gradients, split_rows
from nanochat.train.interrupt import Interrupt
from nanochat.train.loss_scale import LossScale
from nanochat.train.objective import loss_sum_and_count
from nanochat.train.shard_model import evened, is_sharded, local_part, whole_model


class Source(Protocol):
    """Where batches come from: shards, conversations or rollouts.

    A stop request may raise out of `next_step`; the run then saves the state from before that call,
    so `state_dict` returns a value that later steps do not change. A source with collectives of its
    own makes them through the World of `Interrupt.guarded()`, which it is built with.
    """

    def next_step(self) -> list[Batch]: ...
    def state_dict(self) -> dict[str, Any]: ...
    def load_state_dict(self, states: dict[str, Any] | Sequence[dict[str, Any]]) -> None: ...


@dataclass(frozen=True, kw_only=True)
class StepStats:
    """What one optimizer step did, the same on every rank. `lr`: learning rates by the group of
    parameters, each the full one times `lr_frac`.
    """

    step: int
    loss: float
    grad_norm: float
    lr_frac: float
    lr: dict[str, float]
    n_targets: int
    n_tokens: int
    seconds: float
    skipped: bool = False


class Hook:
    """Something done around the steps, on every rank; it may not change the model.

    After a step the hooks are called in the order in which they are listed: `evaluate` of those
    that are due, `after_step` of the others.
    """

    def due(self, step: int, n_steps: int) -> bool:
        """True where `evaluate` is wanted after this step."""
        return False

    def asks(self, trainer: Trainer) -> bool:
        """A wish of this rank alone (time is up); then `trainer.asked` holds the hooks that asked
        on any rank.
        """
        return False

    def after_step(self, trainer: Trainer, stats: StepStats) -> None:
        """Quick work, never broken off."""

    def evaluate(self, trainer: Trainer, model: GPT, world: World) -> None:
        """Work of seconds to minutes, given up on a signal and made up for after a resume.

        `model`: the trained weights, whole on every rank. `world`: for all collectives of this
        work.
        """

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
        forward: ForwardPass | None = None,
        max_bad_steps: int = 5,
        description: str = "train",
        interrupt: Interrupt | None = None,
    ) -> None:
        self.model = model
        self.source = source
        self.optimizer = optimizer
        self.schedule = schedule
        self.world = world
        self.hooks = list(hooks)
        self.grad_clip = grad_clip
        self.max_bad_steps = max_bad_steps
        self.description = description
        self.interrupt = interrupt or Interrupt(world)
        self.loss_scale = LossScale() if model.compute_dtype == torch.float16 else None
        self.gradients = Gradients(
            model,
            forward or ForwardPass(model),
            loss_scale=self.loss_scale,
            overlap=optimizer.overlap,
            rank=world.rank,
        )
        self.step = 0  # steps done
        self.train_s = 0.0  # time in steps, without hooks
        self.tokens_seen = 0
        self.n_bad_steps = 0  # not finite, in a row, up to now
        self.interrupted = False  # by a signal
        self.stop_reason: str | None = None
        self.asked: list[Hook] = []
        self.scores: dict[int, dict[str, float | None]] = {}  # of evaluations, by step
        self.evaluated: set[int] = set()  # steps whose evaluations are all made
        self._last_batches: list[Batch] = []  # of the run's last step
        self._position: dict[str, Any] | None = None  # of the source, when a step was given up

    @property
    def n_steps(self) -> int:
        return self.schedule.n_steps

    @property
    def diverged(self) -> bool:
        """Whether steps were not finite up to the last one, or too many in a row."""
        return self.n_bad_steps >= (1 if self.step >= self.n_steps else self.max_bad_steps)

    @property
    def done(self) -> bool:
        return self.step >= self.n_steps or self.stop_reason is not None

    def fit(self) -> None:
        """Train to the end, until a hook sets `stop_reason` or a signal asks to stop."""
        with Progress(self.n_steps, self.description, enabled=self.world.is_main) as progress:
            progress.done = self.step
            while not self.done:
                stats = self.train_step()
                if stats is None:
                    break
                self.call_hooks(stats)
                progress.advance(1, **self._shown(stats))
        for hook in self.hooks:
            hook.at_end(self)

    def _shown(self, stats: StepStats) -> dict[str, float]:
        """What stands beside the progress of a step."""
        shown = {"loss": stats.loss, "lr": stats.lr.get("matrices", stats.lr_frac)}
        scores = [score["val_bpb"] for score in self.scores.values() if score.get("val_bpb")]
        if scores and scores[-1] is not None:
            shown["val_bpb"] = scores[-1]
        return {**shown, "tok_s": round(stats.n_tokens / max(stats.seconds, 1e-9))}

    def evaluates(self) -> bool:
        """Whether any hook wants to evaluate after the current step."""
        return any(hook.due(self.step, self.n_steps) for hook in self.hooks)

    def call_hooks(self, stats: StepStats) -> None:
        """All hooks after a step, in order."""
        for hook in self.hooks:
            if not hook.due(stats.step, self.n_steps):
                hook.after_step(self, stats)
            elif not self.interrupted:
                self._evaluate(hook)
        if self.evaluates() and not self.interrupted:
            self.evaluated.add(stats.step)

    def catch_up(self) -> None:
        """Make the evaluations that are due at the current step: a resumed run's were broken
        off."""
        for hook in self.hooks:
            if hook.due(self.step, self.n_steps) and not self.interrupted:
                self._evaluate(hook)
        if not self.interrupted:
            self.evaluated.add(self.step)

    def _evaluate(self, hook: Hook) -> None:
        was_training = self.model.training
        model, world = whole_model(self.model), self.interrupt.guarded()
        try:
            if self.interrupt.run(hook.evaluate, self, model, world):
                self._stop()
        finally:
            self.model.train(was_training)

    def _stop(self) -> None:
        self.interrupted, self.stop_reason = True, self.interrupt.requested

    def train_step(self) -> StepStats | None:
        """One optimizer step over this rank's micro-batches; None when a stop request came before
        there was a batch.
        """
        started = time.perf_counter()
        batches = self._next_batches()
        if batches is None:
            self._stop()
            return None
        n_targets, n_tokens, n_batches = self._count(batches)
        if is_sharded(self.model):
            batches = evened(batches, n_batches, self.world.device)
        self._position = None
        loss_sum = self.gradients.accumulate(batches, n_targets)
        grads = self.optimizer.reduce_gradients()
        loss = self._agree(loss_sum)
        grad_norm = self._unscaled_norm(grads)
        lr_frac = self.schedule.lr(self.step)
        finite = math.isfinite(loss) and math.isfinite(grad_norm)
        if finite and n_targets:
            self._update(grads, grad_norm, lr_frac)
        self.optimizer.zero_grad()
        self.step += 1
        self.tokens_seen += n_tokens
        self._count_bad_step(finite, loss, grad_norm)
        self._last_batches = batches if self.step == self.n_steps else []
        seconds = time.perf_counter() - started
        self.train_s += seconds
        return StepStats(
            step=self.step,
            loss=loss,
            grad_norm=grad_norm,
            lr_frac=lr_frac,
            lr=self.optimizer.rates(lr_frac),
            n_targets=n_targets,
            n_tokens=n_tokens,
            seconds=seconds,
            skipped=not finite,
        )

    def _count(self, batches: list[Batch]) -> tuple[int, int, int]:
        """Over all ranks: targets, tokens, and the most micro-batches that one has."""
        counts = torch.zeros(2 + self.world.world_size, dtype=torch.float64)
        counts[0] = sum(int((batch.weights != 0).sum()) for batch in batches)
        counts[1] = sum(batch.targets.numel() for batch in batches)
        counts[2 + self.world.rank] = len(batches)
        wire = self.world.device if self.world.backend == "nccl" else torch.device("cpu")
        n_targets, n_tokens, *n_batches = map(
            int, self.world.all_reduce_sum(counts.to(wire)).tolist()
        )
        return n_targets, n_tokens, max(n_batches)

    def _next_batches(self) -> list[Batch] | None:
        """This rank's batches on its device, or None, on all ranks, when a stop request broke into
        their making.
        """
        self._position = self.source.state_dict()
        batches: list[Batch] = []

        def fill() -> None:
            batches.extend(self.source.next_step())

        if self.interrupt.run(fill):
            return None
        return [
            batch.to(self.world.device)
            for batch in split_rows(batches, self.gradients.device_batch_size)
        ]

    def _agree(self, loss_sum: Tensor) -> float:
        """The loss over all ranks; with it travel stop requests and the hooks' wishes, so that all
        ranks act alike.
        """
        wishes = [self.interrupt.requested is not None, *(hook.asks(self) for hook in self.hooks)]
        message = torch.cat(
            [loss_sum.reshape(1), torch.tensor(wishes, dtype=torch.float32, device=loss_sum.device)]
        )
        loss, stop, *asked = self.world.all_reduce_sum(message).tolist()
        if stop:
            self.interrupt.request("another rank's signal")
            self._stop()
        self.asked = [hook for hook, wish in zip(self.hooks, asked, strict=True) if wish]
        return loss

    def _unscaled_norm(self, grads: list[Tensor]) -> float:
        if self.loss_scale is not None:
            torch._foreach_mul_(grads, 1 / self.loss_scale.scale)
        return self.optimizer.grad_norm()

    def _update(self, grads: list[Tensor], grad_norm: float, lr_frac: float) -> None:
        if self.grad_clip and grad_norm > self.grad_clip:
            torch._foreach_mul_(grads, self.grad_clip / (grad_norm + 1e-6))
        self.optimizer.step(
            lr_frac, self.schedule.muon_momentum(self.step), self.schedule.weight_decay(self.step)
        )

    def healthy(self) -> bool:
        """Whether the weights as they are now may be kept: the newest step was finite and so are
        they. Collective.

        What a step makes of the weights shows in the loss of the next one. The last has none: its
        weights must give a finite loss on rows of that step.
        """
        # A sum that is finite has finite terms, and it reads the weights only once.
        sums = [local_part(parameter).float().sum() for parameter in self.model.parameters()]
        total = torch.stack(sums).sum().detach()
        if self._last_batches:
            with torch.no_grad():
                total += loss_sum_and_count(whole_model(self.model), self._last_batches[0])[0]
        finite = math.isfinite(float(self.world.all_reduce_sum(total)))
        return finite and self.n_bad_steps == 0

    def _count_bad_step(self, finite: bool, loss: float, grad_norm: float) -> None:
        """Skipped steps are forgiven until `max_bad_steps` of them come in a row."""
        if self.loss_scale is not None and math.isfinite(loss):
            searching = not finite and not self.loss_scale.exhausted
            self.loss_scale.update(overflow=not finite)
            if searching:  # float16 looking for its scale is no fault of the run
                return
        self.n_bad_steps = 0 if finite else self.n_bad_steps + 1
        if self.n_bad_steps >= self.max_bad_steps:
            raise ValueError(
                f"step {self.step}: loss {loss} and gradient norm {grad_norm} were not finite "
                f"for {self.n_bad_steps} "
                "steps in a row; lower --matrix-lr and --embedding-lr, or look at the data; "
                "the last checkpoint is from before and can be resumed"
            )

    def state_dict(self) -> dict[str, Any]:
        """Counters and, of every rank, data position and random states; plain JSON values. Call it
        on all ranks.
        """
        own = {
            "source": self.source.state_dict() if self._position is None else self._position,
            "rng": rng_state(self.world.device),
            "device_batch_size": self.gradients.device_batch_size,
        }
        ranks = self.world.gather_objects(own)
        return {
            "step": self.step,
            "train_s": self.train_s,
            "tokens_seen": self.tokens_seen,
            "n_bad_steps": self.n_bad_steps,
            "device_batch_size": min(
                (rank["device_batch_size"] for rank in ranks if rank["device_batch_size"]),
                default=None,
            ),
            "loss_scale": None if self.loss_scale is None else self.loss_scale.state_dict(),
            "source": [rank["source"] for rank in ranks],
            "rng": [rank["rng"] for rank in ranks],
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Continue from `state`, on any number of ranks."""
        self.step = state["step"]
        self.train_s = state["train_s"]
        self.tokens_seen = state["tokens_seen"]
        self.n_bad_steps = state.get("n_bad_steps", 0)
        # Checkpoints of older versions call it micro_rows.
        self.gradients.device_batch_size = state.get("device_batch_size", state.get("micro_rows"))
        if self.loss_scale is not None and state.get("loss_scale"):
            self.loss_scale.load_state_dict(state["loss_scale"])
        self.source.load_state_dict(state["source"])
        if self.world.rank < len(state.get("rng", [])):
            set_rng_state(state["rng"][self.world.rank], self.world.device)
