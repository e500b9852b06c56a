"""Settings of reinforcement learning."""

from __future__ import annotations

from dataclasses import dataclass, fields
from typing import Literal

from nanochat.train.configs import TrainConfig, at_least

# Settings of the other stages that mean nothing here: a step is made of questions, and nothing is
# packed into rows.
UNUSED = ("max_seq_len", "total_batch_size", "eval_tokens", "sample_every", "compile")


@dataclass
class RLConfig(TrainConfig):
    """Reinforcement learning: the model answers questions, a task rewards the answers, and those
    that earn more than others become likelier.
    """

    source: Literal["base", "mid", "sft", "rl"] = "sft"
    """Stage whose checkpoint to start from (with --model-tag and --step)."""
    step: int | None = None
    """Step of the source checkpoint; by default the newest."""
    tag_out: str | None = None
    """Name of the new checkpoint folder; by default the source's tag."""
    task: str = "auto"
    """Tasks separated by |: GSM8K, SpellingBee, World-arithmetic, World-counting, World-spelling,
    World-facts, SQL; each also as NAME-without-tool. `auto`: GSM8K when its data is there, else
    World-counting-without-tool.
    """
    sql_data: str | None = None
    """File of questions for the task SQL, as `nanochat sql build` writes; by default
    sql/train.jsonl in the task data.
    """
    num_epochs: float = 1.0
    """Passes over the questions."""
    examples_per_step: int = 16
    """Questions of a step, over all devices."""
    num_samples: int = 16
    """Answers to each question."""
    max_new_tokens: int = 256
    """Longest answer."""
    temperature: float = 1.0
    """Of the sampled answers. Only 1, with all tokens to choose from, draws from the model that is
    trained.
    """
    top_k: int = 0
    """Sample from the k likeliest tokens; 0 for all."""
    min_p: float = 0.0
    """Leave out tokens that would be drawn less than this share as often as the likeliest: a
    temperature above 1 then explores where the model doubts and spoils nothing where it does not.
    0: none.
    """
    rollout_batch_size: int | None = None
    """Answers written at the same time on each device; by default 64 on a CPU, 256 on a GPU."""
    advantage: Literal["mean", "grpo", "loo"] = "mean"
    """What a reward is compared with: the group's mean, that in standard deviations (grpo), the
    other answers (loo).
    """
    updates_per_batch: int = 1
    """Optimizer steps on the same answers. With more than one the ratio to the model that drew them
    is clipped.
    """
    clip_ratio: float = 0.2
    """How far a token's probability may move from where it was drawn before it stops counting."""
    kl_coef: float = 0.0
    """Strength of the pull towards the starting model."""
    init_lr_frac: float = 0.05
    """Learning rate at the first step, as a share of the base recipe's; it decays to 0."""
    eval_every: int = 60
    """Steps between evaluations on held-out questions; -1: only before and after; 0: never."""
    eval_examples: int = 400
    """Held-out questions of each task."""
    eval_samples: int = 8
    """Answers to each of them: pass@1 to pass@k are estimated."""
    save_every: int = 60
    """Steps between checkpoints besides the one at the end; -1: only by time."""

    def problems(self) -> list[str]:
        found = super().problems()
        found += at_least(
            self, step=0, examples_per_step=1, num_samples=2, max_new_tokens=1, top_k=0
        )
        found += at_least(
            self, rollout_batch_size=1, updates_per_batch=1, kl_coef=0, init_lr_frac=0
        )
        found += at_least(self, eval_examples=1, eval_samples=1, seed=0)
        if self.shard_model:
            found.append(
                "--shard-model: answers are drawn from a whole model on each device; leave it "
                "out here"
            )
        for name in ("num_epochs", "temperature", "clip_ratio"):
            if not getattr(self, name) > 0:
                found.append(f"--{name.replace('_', '-')}={getattr(self, name)}: must be above 0")
        if not 0 <= self.min_p < 1:
            found.append(f"--min-p={self.min_p}: must be at least 0 and below 1")
        for each in fields(TrainConfig):
            if each.name in UNUSED and getattr(self, each.name) != each.default:
                found.append(
                    f"--{each.name.replace('_', '-')}: has no effect in reinforcement learning; "
                    "leave it out"
                )
        if self.task != "auto":
            from nanochat.train.rl_tasks import task_names

            try:
                task_names(self.task)
            except ValueError as error:
                found.append(str(error))
        return found
