"""`nanochat plan`: what a run will need before it is started: micro-batch, memory by part, disk,
hours, dollars.
"""

from __future__ import annotations

import math
import re
from dataclasses import dataclass, replace
from typing import Literal

import torch

from nanochat.cost import (
    GIB,
    checkpoint_bytes,
    count_parameters,
    flops_per_token,
)
from nanochat.gpt_config import GPTConfig
from nanochat.runtime.chips import CHIPS, Chip, find_chip
from nanochat.runtime.world import World
from nanochat.train.compiled import wants_compiling
from nanochat.train.configs import BaseConfig, at_least
from nanochat.train.derive import Settings, pretraining
from nanochat.train.micro_batch import MicroBatch, fitting_micro_batch
from nanochat.training_memory import Memory, StepShape, training_memory

USABLE = 0.95  # of a card's memory: the driver and the desktop have the rest
# Flags of `plan` that mean what they mean to `base_train`.
SHARED_FLAGS = (
    "depth",
    "generation",
    "max_seq_len",
    "device_batch_size",
    "total_batch_size",
    "num_iterations",
    "target_param_data_ratio",
    "activation_checkpointing",
    "shard_model",
    "compile",
)
PUBLISHED_VOCABULARY = {"classic": 65536, "modern": 32768}


@dataclass
class PlanConfig:
    """Memory, hours and cost of a pretraining run, by arithmetic alone: nothing is loaded, nothing
    is trained.
    """

    depth: int = 20
    """Layers; the one dial."""
    gpus: int = 1
    """GPUs, one process each."""
    memory: str | None = None
    """Memory of each GPU, e.g. 24GB; by default that of --chip."""
    chip: str | None = None
    """GPU, e.g. H100 or 4090; by default this machine's, else one with that much memory."""
    generation: Literal["classic", "modern"] = "classic"
    """Architecture and recipe, as for base-train."""
    vocab_size: int | None = None
    """Entries of the tokenizer; by default the published 65,536 (classic) or 32,768 (modern)."""
    max_seq_len: int = 2048
    """Tokens of a row."""
    device_batch_size: int | None = None
    """Rows of a micro-batch on each GPU; by default what fits."""
    total_batch_size: int | None = None
    """Tokens of an optimizer step over all GPUs; by default from the depth."""
    num_iterations: int | None = None
    """Optimizer steps; by default from the depth."""
    target_param_data_ratio: float | None = None
    """Training tokens per parameter; by default the generation's."""
    dtype: Literal["bfloat16", "float16", "float32"] = "bfloat16"
    """Type the model computes in."""
    activation_checkpointing: bool = False
    """Keep only what enters each block: less memory, a third slower."""
    shard_model: bool = False
    """Weights and gradients in pieces over the GPUs too."""
    compile: bool = True
    """Compile the model, as runs on GPUs do; never together with --shard-model."""
    mfu: float | None = None
    """Share of the chip's peak that training reaches; by default a guess for the chip."""
    hourly_rate: float | None = None
    """US dollars for an hour of one GPU; by default a rough public price."""
    keep: int = 2
    """Newest checkpoints kept."""

    def problems(self) -> list[str]:
        found = at_least(
            self,
            depth=1,
            gpus=1,
            vocab_size=2,
            max_seq_len=1,
            device_batch_size=1,
            num_iterations=1,
        )
        found += at_least(self, total_batch_size=1, hourly_rate=0, keep=1)
        if self.memory is not None and parse_memory(self.memory) is None:
            found.append(f"--memory={self.memory}: give a number of gigabytes, e.g. 24GB")
        if self.chip is not None and find_chip(self.chip) is None and self.memory is None:
            known = ", ".join(chip.name for chip in CHIPS)
            found.append(
                f"--chip={self.chip}: unknown; use one of {known}, or leave it out and give "
                "--memory"
            )
        if self.mfu is not None and not 0 < self.mfu <= 1:
            found.append(f"--mfu={self.mfu}: must be above 0 and at most 1, e.g. 0.4")
        return found


def parse_memory(text: str) -> int | None:
    """`24GB`, `24 GiB` or `24` -> bytes: cards are named in powers of two. None where it is no such
    number.
    """
    match = re.fullmatch(r"\s*(\d+(?:\.\d+)?)\s*(?:g|gb|gib)?\s*", text, re.IGNORECASE)
    return int(float(match.group(1)) * GIB) if match and float(match.group(1)) > 0 else None


@dataclass(frozen=True, kw_only=True)
class RunPlan:
    """What a run needs. `hours` and `usd` are None where the chip's speed or price is not known."""

    recipe: str
    model_config: GPTConfig
    device_batch_size: int
    accumulation: int
    checkpointing: bool
    total_batch_size: int
    n_steps: int
    memory: Memory
    disk_bytes: int
    hours: float | None
    usd: float | None
    hardware: str
    fits: bool

    def lines(self) -> list[str]:
        """The two lines that a run begins with."""
        extra = ", activation checkpointing" if self.checkpointing else ""
        peak = f"{self.memory.peak / GIB:.1f} GiB a device"
        parts = [
            ("weights, gradients", self.memory.weights + self.memory.gradients),
            ("states", self.memory.optimizer),
        ]
        parts.append(
            ("activations", self.memory.activations + self.memory.cast_weights + self.memory.head)
        )
        told = ", ".join(f"{name} {size / GIB:.1f}" for name, size in parts)
        return [
            f"plan: {self.hardware}: micro-batches of {self.device_batch_size} row(s) "
            f"({self.accumulation} a step){extra}{told_price(self.hours, self.usd)}",
            f"plan: peak memory {peak} ({told}); checkpoints take {self.disk_bytes / 1e9:.1f} GB "
            "of disk",
        ]

    def __str__(self) -> str:
        config = self.model_config
        head = (
            f"d{config.n_layer} {self.recipe}: {count_parameters(config)}, {self.n_steps:,} steps "
            f"of {self.total_batch_size:,} tokens"
        )
        advice = (
            "use more GPUs, --shard-model on several, a smaller --depth, --vocab-size or "
            "--max-seq-len"
        )
        verdict = "" if self.fits else f"\nDOES NOT FIT: {advice}"
        return "\n".join([head, *self.lines(), self.memory.table()]) + verdict


def make_plan(
    settings: Settings,
    micro: MicroBatch,
    *,
    world_size: int,
    n_steps: int,
    chip: Chip | None,
    device_type: str,
    element_bytes: int,
    keep: int,
    compiled: bool,
    budget_bytes: float = math.inf,
) -> RunPlan:
    """The plan of a run whose settings and micro-batch are decided."""
    config, rows = settings.model_config, micro.device_batch_size
    share = -(-settings.rows_per_step // world_size)
    step = StepShape(
        config=config,
        rows=rows,
        seq_len=settings.seq_len,
        world_size=world_size,
        element_bytes=element_bytes,
        checkpointing=micro.activation_checkpointing,
        device_type=device_type,
        shard_model=micro.shard_model,
        compiled=compiled,
        micro_batches=-(-share // rows),
    )
    needs = training_memory(step)
    hours, usd = price(settings, n_steps, chip, world_size)
    return RunPlan(
        recipe=settings.recipe,
        model_config=config,
        device_batch_size=rows,
        accumulation=-(-share // rows),
        checkpointing=micro.activation_checkpointing,
        total_batch_size=settings.total_batch_size,
        n_steps=n_steps,
        memory=needs,
        disk_bytes=(keep + 2) * checkpoint_bytes(config),
        hours=hours,
        usd=usd,
        hardware=f"{world_size} x {chip.name}"
        if chip
        else f"{world_size} process(es) on {device_type}",
        fits=needs.peak <= budget_bytes,
    )


def price(
    settings: Settings, n_steps: int, chip: Chip | None, world_size: int
) -> tuple[float | None, float | None]:
    """(hours, dollars) of `n_steps`; None where the chip's speed is not known."""
    if chip is None or not chip.tflops:
        return None, None
    tokens = settings.total_batch_size * n_steps
    flops = flops_per_token(settings.model_config, settings.seq_len) * tokens
    hours = flops / (chip.tflops * 1e12 * chip.mfu * world_size) / 3600
    return hours, hours * chip.usd * world_size


def told_price(hours: float | None, usd: float | None) -> str:
    if hours is None:
        return ""
    return f", about {hours:.1f} h" + (f" (${usd:.0f})" if usd else "")


def other_generations(
    cfg: BaseConfig, vocab_size: int, device_type: str, chip: Chip | None, world_size: int
) -> list[str]:
    """One line for each generation that `cfg` does not ask for: what it would be at this depth,
    with its published vocabulary where this one has its own.
    """
    lines = []
    for name, published in PUBLISHED_VOCABULARY.items():
        if name == cfg.generation:
            continue
        entries = published if vocab_size == PUBLISHED_VOCABULARY[cfg.generation] else vocab_size
        other = pretraining(replace(cfg, generation=name), entries, device_type)  # type: ignore[arg-type]
        assert other.n_steps is not None
        lines.append(
            f"instead, --generation={name} and a vocabulary of {entries:,} give: "
            f"{count_parameters(other.model_config)}, {other.n_steps:,} steps of "
            f"{other.total_batch_size:,} tokens"
            f"{told_price(*price(other, other.n_steps, chip, world_size))}"
        )
    return lines


def chip_of(world: World) -> Chip | None:
    """The chip of this process, where it is a GPU that is known."""
    if world.device.type != "cuda":
        return None
    return find_chip(torch.cuda.get_device_name(world.device))


def run_plan(
    settings: Settings,
    micro: MicroBatch,
    world: World,
    *,
    n_steps: int,
    compute_dtype: torch.dtype | None,
    keep: int,
    compiled: bool,
) -> RunPlan:
    """The plan of the run that is about to start here."""
    return make_plan(
        settings,
        micro,
        world_size=world.world_size,
        n_steps=n_steps,
        chip=chip_of(world),
        device_type=world.device.type,
        element_bytes=(compute_dtype or torch.float32).itemsize,
        keep=keep,
        compiled=compiled,
    )


def plan(config: PlanConfig) -> str:
    """What `nanochat plan` prints. Raises ValueError where the settings do not fit each other."""
    chip, budget_bytes = _chip(config)
    cfg = BaseConfig(**{name: getattr(config, name) for name in SHARED_FLAGS})
    vocab_size = config.vocab_size or PUBLISHED_VOCABULARY[config.generation]
    settings = pretraining(cfg, vocab_size, device_type="cuda")
    element_bytes = getattr(torch, config.dtype).itemsize
    micro = fitting_micro_batch(
        cfg,
        settings,
        world_size=config.gpus,
        device_type="cuda",
        step_rows=-(-settings.rows_per_step // config.gpus),
        budget_bytes=budget_bytes,
        element_bytes=element_bytes,
    )
    assert settings.n_steps is not None
    made = make_plan(
        settings,
        micro,
        world_size=config.gpus,
        n_steps=settings.n_steps,
        chip=chip,
        device_type="cuda",
        element_bytes=element_bytes,
        keep=config.keep,
        compiled=wants_compiling(
            "cuda", config.compile, micro.shard_model, settings.total_batch_size
        ),
        budget_bytes=budget_bytes,
    )
    return "\n".join([str(made), *other_generations(cfg, vocab_size, "cuda", chip, config.gpus)])


def _chip(config: PlanConfig) -> tuple[Chip | None, float]:
    """The chip to plan for, with the given speed and price, and the bytes that may be used on
    it."""
    given = parse_memory(config.memory) if config.memory else None
    chip: Chip | None
    if config.chip:
        chip = find_chip(config.chip) or Chip(config.chip, 0.0)
    elif given is None:
        here = find_chip(torch.cuda.get_device_name()) if torch.cuda.is_available() else None
        chip = here or find_chip("H100")
    else:  # the fastest whose memory it could be
        sizes = [chip for chip in CHIPS if chip.memory_gb == given / GIB and chip.tflops]
        chip = max(sizes, key=lambda chip: chip.tflops or 0, default=None)
    if chip is not None:
        chip = replace(
            chip,
            mfu=config.mfu or chip.mfu,
            usd=chip.usd if config.hourly_rate is None else config.hourly_rate,
        )
    size = given or ((chip.memory_gb or 0) * GIB if chip else 0)
    return chip, USABLE * size
