"""How a step is computed on the devices there are: the rows of a micro-batch, and what saves
memory. None of it changes a result.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch

from nanochat.runtime.precision import pick_dtype
from nanochat.runtime.world import World
from nanochat.train.compiled import wants_compiling
from nanochat.train.configs import TrainConfig
from nanochat.train.derive import Settings
from nanochat.training_memory import StepShape, fitting_rows

MICRO_BATCH_TOKENS = {"cpu": 8192, "cuda": 65536, "mps": 8192}
USABLE_MEMORY = 0.97  # of what is free when the run starts


@dataclass(frozen=True, kw_only=True)
class MicroBatch:
    """`device_batch_size`: rows that a device computes at once."""

    device_batch_size: int
    activation_checkpointing: bool = False
    shard_model: bool = False


def choose_micro_batch(
    cfg: TrainConfig, settings: Settings, world: World, *, fixed_step: bool = True
) -> MicroBatch:
    """As asked, else what fits the free memory of the fullest device (a collective). Never more
    than a rank's share of a step, where that is fixed (that of rollouts is not).
    """
    free = None
    if world.device.type == "cuda" and not cfg.device_batch_size:
        free = min(world.gather_objects(torch.cuda.mem_get_info(world.device)[0]))
    return fitting_micro_batch(
        cfg,
        settings,
        world_size=world.world_size,
        device_type=world.device.type,
        step_rows=-(-settings.rows_per_step // world.world_size) if fixed_step else None,
        budget_bytes=None if free is None else USABLE_MEMORY * free,
        element_bytes=pick_dtype(world.device).itemsize,
    )


def fitting_micro_batch(
    cfg: TrainConfig,
    settings: Settings,
    *,
    world_size: int,
    device_type: str,
    step_rows: int | None,
    budget_bytes: float | None,
    element_bytes: int,
) -> MicroBatch:
    """What fits `budget_bytes`; one row where by the plan nothing does, for the plan is careful.

    `step_rows`: of a rank in an optimizer step; None: not known, as in reinforcement learning.
    """
    in_pieces = cfg.shard_model and world_size > 1
    checkpointing = cfg.activation_checkpointing
    if cfg.device_batch_size:
        rows = cfg.device_batch_size if step_rows is None else min(step_rows, cfg.device_batch_size)
        return MicroBatch(
            device_batch_size=rows, activation_checkpointing=checkpointing, shard_model=in_pieces
        )
    rows = max(1, MICRO_BATCH_TOKENS[device_type] // settings.seq_len)
    if step_rows is not None:
        rows = min(step_rows, rows)
    if budget_bytes is not None:
        # Reinforcement learning never compiles: each of its batches has another shape.
        compiled = step_rows is not None and wants_compiling(
            device_type, cfg.compile, in_pieces, settings.total_batch_size
        )
        step = StepShape(
            config=settings.model_config,
            rows=rows,
            seq_len=settings.seq_len,
            world_size=world_size,
            element_bytes=element_bytes,
            checkpointing=checkpointing,
            shard_model=in_pieces,
            compiled=compiled,
        )
        rows, checkpointing = fitting_rows(step, budget_bytes, step_rows)
    return MicroBatch(
        device_batch_size=max(1, rows),
        activation_checkpointing=checkpointing,
        shard_model=in_pieces,
    )
