"""Settings of the training stages: one dataclass each, checked as a whole before anything is
written.

A value of None means "follows from the others"; `stages.py` fills it in and the run directory
records the result.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import ClassVar, Literal

from nanochat.runtime.trackers import run_name


def at_least(config: object, **least: float) -> list[str]:
    """One problem for each field that is set and below its least value."""
    problems = []
    for name, low in least.items():
        value = getattr(config, name)
        if value is not None and not low <= value < math.inf:  # NaN neither
            problems.append(
                f"--{name.replace('_', '-')}={value}: must be a number of at least {low}"
            )
    return problems


@dataclass
class TrainConfig:
    """What every training stage has."""

    run: str = field(default_factory=run_name)
    """W&B run name, by default $WANDB_RUN; `dummy`: nothing goes to W&B. Never decides what is
    trained or saved.
    """
    tensorboard: bool = False
    """Also write the metrics for TensorBoard, into the run's folder."""
    device_type: Literal["cuda", "cpu", "mps"] | None = None
    """Device; by default the best there is."""
    model_tag: str | None = None
    """Name of the checkpoint folder; by default d<depth>, or the source's tag."""
    max_seq_len: int | None = None
    """Tokens of a row."""
    device_batch_size: int | None = None
    """Rows of a micro-batch on each device; by default what fits."""
    total_batch_size: int | None = None
    """Tokens of an optimizer step over all devices; reached by gradient accumulation."""
    num_iterations: int | None = None
    """Optimizer steps; -1 or unset: from the horizon (base) or the epochs (mid, sft)."""
    embedding_lr: float | None = None
    """Learning rate of the embeddings; by default the published one, scaled to the batch."""
    unembedding_lr: float | None = None
    """The same of the head."""
    matrix_lr: float | None = None
    """The same of the matrices, which Muon trains."""
    scalar_lr: float | None = None
    """The same of the scalars."""
    weight_decay: float | None = None
    """Weight decay of the matrices; by default from the length of the run."""
    warmup_ratio: float | None = None
    """Share of the steps with rising learning rate."""
    warmdown_ratio: float | None = None
    """Share of the steps with falling learning rate, at the end."""
    final_lr_frac: float | None = None
    """Learning rate at the last step, as a share of the full one."""
    grad_clip: float | None = None
    """Largest global gradient norm; 0: no clipping. By default 1 (classic) or none (modern).
    """
    eval_every: int = 250
    """Steps between validation bits per byte; -1: only at the end; 0: never."""
    eval_tokens: int = 20 * 524288
    """Validation tokens."""
    sample_every: int = 2000
    """Steps between samples; -1: only at the end; 0: never."""
    save_every: int = -1
    """Steps between checkpoints besides the one at the end; -1: only by time."""
    save_every_s: float = 900.0
    """Seconds between checkpoints."""
    keep: int = 2
    """Newest checkpoints to keep."""
    resume: bool = False
    """Continue from the newest complete step of this stage and tag."""
    resume_from_step: int | None = None
    """Continue from this step; -1: a fresh start."""
    replace: bool = False
    """Let a fresh start have a folder with checkpoints: they are moved into a dated one."""
    compile: bool | None = None
    """Compile the model; by default on GPUs, and on CPUs with a C++ compiler where the run is long
    enough to pay.
    """
    activation_checkpointing: bool = False
    """Keep only what enters each block and compute the rest again in the backward pass: less
    memory, a third slower.
    """
    shard_model: bool = False
    """Weights and gradients in pieces over the processes too (PyTorch FSDP2), for a model that does
    not fit beside its optimizer states; several processes only, uncompiled. Checkpoints are the
    same.
    """
    seed: int = 42
    """Seed of weights, order of the data and samples."""

    @property
    def resumes(self) -> bool:
        """`--resume-from-step` counts more than `--resume`; -1 is a fresh start."""
        if self.resume_from_step is None:
            return self.resume
        return self.resume_from_step != -1

    def problems(self) -> list[str]:
        found = at_least(
            self,
            max_seq_len=1,
            device_batch_size=1,
            total_batch_size=1,
            num_iterations=-1,
            eval_tokens=1,
        )
        found += at_least(
            self,
            embedding_lr=0,
            unembedding_lr=0,
            matrix_lr=0,
            scalar_lr=0,
            weight_decay=0,
            grad_clip=0,
        )
        found += at_least(
            self, eval_every=-1, sample_every=-1, save_every=-1, save_every_s=1, keep=1
        )
        for name in ("warmup_ratio", "warmdown_ratio", "final_lr_frac"):
            value = getattr(self, name)
            if value is not None and not 0 <= value <= 1:
                found.append(f"--{name.replace('_', '-')}={value}: must be between 0 and 1")
        if self.shard_model and self.compile:
            found.append(
                "--compile: not possible together with --shard-model; leave one of them out"
            )
        if self.num_iterations == 0:
            found.append("--num-iterations=0: must be at least 1; -1 lets it follow from the data")
        if self.total_batch_size and self.max_seq_len and self.total_batch_size % self.max_seq_len:
            found.append(
                f"--total-batch-size={self.total_batch_size}: must be a multiple of "
                f"--max-seq-len={self.max_seq_len}"
            )
        return found


@dataclass
class BaseConfig(TrainConfig):
    """Pretrain a model on text shards. `--depth` alone sets width, heads, batch, learning rates,
    decay and horizon.
    """

    depth: int = 20
    """Layers; the one dial."""
    aspect_ratio: int = 64
    """Width per layer."""
    head_dim: int = 128
    """Channels of an attention head."""
    n_kv_head: int | None = None
    """Key/value heads (grouped-query attention); by default one per query head."""
    generation: Literal["classic", "modern"] = "classic"
    """Architecture and recipe: `classic` gives the models that guides speak of (d20 561M, with a
    vocabulary of 65,536); `modern` the strongest published one for the hours (vocabulary 32,768).
    """
    window_pattern: str | None = None
    """Attention windows tiled over the layers: S short, L long. By default SSSL on GPUs (modern),
    else L.
    """
    target_flops: float | None = None
    """Stop after this many training FLOPs (-1 or unset: not used)."""
    target_param_data_ratio: float | None = None
    """Training tokens per parameter; by default 12 (modern, matrices and head) or 20 (classic, all
    parameters).
    """
    core_metric_every: int = 2000
    """Steps between CORE evaluations; -1: never."""
    core_metric_max_per_task: int = 500
    """Examples of each CORE task."""
    fp8: bool = False
    """Matrix products in fp8 (H100 and newer)."""
    data: str | None = None
    """Your own text: a file or folder of .txt, .md, .jsonl or .parquet. By default the shards in
    the base directory.
    """
    skip_bad_shards: bool = False
    """Leave damaged text shards out, with a warning and a count, instead of stopping."""
    tokenizer: str | None = None
    """`gpt2` for GPT-2's vocabulary; by default the trained one."""

    def problems(self) -> list[str]:
        found = super().problems()
        found += at_least(
            self, depth=1, aspect_ratio=1, head_dim=2, n_kv_head=1, core_metric_max_per_task=1
        )
        if self.head_dim % 2:
            found.append(f"--head-dim={self.head_dim}: must be even; use e.g. 128")
        if self.window_pattern is not None and (
            not self.window_pattern or set(self.window_pattern.upper()) - set("SL")
        ):
            found.append(
                f"--window-pattern={self.window_pattern}: use the letters S and L, e.g. SSSL"
            )
        if self.target_param_data_ratio is not None and not self.target_param_data_ratio > 0:
            found.append(
                f"--target-param-data-ratio={self.target_param_data_ratio}: must be above 0, "
                "e.g. 12"
            )
        if self.fp8 and self.device_type == "cpu":
            found.append("--fp8: needs an H100 or newer; leave it out on a CPU")
        return found


@dataclass
class ChatTrainConfig(TrainConfig):
    """What midtraining and fine-tuning share: a checkpoint to start from and conversations to
    learn.
    """

    max_seq_len: int | None = None
    """Tokens of a row; by default the model's context. A longer row makes the context that long, a
    shorter one does not change it.
    """
    source: Literal["base", "mid", "sft", "rl"] = "base"
    """Stage whose checkpoint to start from (with --model-tag and --step)."""
    step: int | None = None
    """Step of the source checkpoint; by default the newest."""
    tag_out: str | None = None
    """Name of the new checkpoint folder; by default the source's tag."""
    data: list[str] = field(default_factory=list)
    """Your own conversations, mixed in: file.jsonl, or file.jsonl:3 for three epochs. May be given
    several times.
    """
    mixture: str = "auto"
    """Built-in conversations: `standard` (the published mixture), `world` (the embedded world),
    `none` (only --data and --persona); `auto`: standard when its data sets are there, else world.
    """
    persona: str | None = None
    """YAML file saying who the model is; by default the built-in persona."""
    num_epochs: float = 1.0
    """Passes over the mixture."""
    init_lr_frac: float = 1.0
    """Learning rate at the first step, as a share of the base recipe's."""

    GONE: ClassVar[dict[str, str]] = {
        "chat_eval_every": "was never read and is gone; leave it out, and examine the checkpoint "
        "with `python -m scripts.chat_eval`"
    }

    def problems(self) -> list[str]:
        found = super().problems() + at_least(self, step=0, init_lr_frac=0)
        if not self.num_epochs > 0:
            found.append(f"--num-epochs={self.num_epochs}: must be above 0")
        if self.mixture not in ("auto", "standard", "world", "none"):
            found.append(f"--mixture={self.mixture}: use auto, standard, world or none")
        if self.mixture == "none" and not self.data and not self.persona:
            found.append(
                "--mixture=none: leaves nothing to learn; name your own files with --data, or a "
                "--persona"
            )
        return found


@dataclass
class MidConfig(ChatTrainConfig):
    """Midtrain: teach a base model conversations, multiple choice and tools. Every token is trained
    on.
    """


@dataclass
class SFTConfig(ChatTrainConfig):
    """Fine-tune on conversations: only what the assistant says is trained on."""

    source: Literal["base", "mid", "sft", "rl"] = "mid"
    """Stage whose checkpoint to start from (with --model-tag and --step)."""
    init_lr_frac: float = 0.02
    """Learning rate at the first step, as a share of the base recipe's."""
