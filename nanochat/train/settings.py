"""From a stage's config to numbers: shape, batch, learning rates, schedule. Pure; what a flag gives
is not derived.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import Any

import torch

from nanochat.cost import fitting_rows, flops_per_token
from nanochat.fp8 import check_fp8
from nanochat.gpt_config import GPTConfig
from nanochat.optim.schedule import Schedule
from nanochat.optim.training_recipe import RECIPES, OptimConfig, TrainingRecipe, recipe_of
from nanochat.runtime.precision import pick_dtype
from nanochat.runtime.world import World
from nanochat.train.compiled import wants_compiling
from nanochat.train.configs import BaseConfig, ChatTrainConfig, TrainConfig
from nanochat.train.rl_configs import RLConfig
from nanochat.train.scaling import (
    REFERENCE_DEPTH,
    batch_tokens,
    lr_scales,
    scaling_params,
    shape_for_depth,
    weight_decay_scale,
)

MICRO_BATCH_TOKENS = {"cpu": 8192, "cuda": 65536, "mps": 8192}
USABLE_MEMORY = 0.97  # of what is free when the run starts


@dataclass(frozen=True)
class Settings:
    """Everything a run is given besides data and weights. n_steps None: follows from the length of
    the data.
    """

    recipe: str
    model_config: GPTConfig
    seq_len: int
    device_batch_size: int
    total_batch_size: int
    n_steps: int | None
    optim: OptimConfig
    warmup_ratio: float
    warmdown_ratio: float
    final_lr_frac: float
    grad_clip: float
    activation_checkpointing: bool = False
    shard_model: bool = False

    @property
    def rows_per_step(self) -> int:
        return self.total_batch_size // self.seq_len

    def schedule(self, n_steps: int) -> Schedule:
        """The recipe's schedule over `n_steps`."""
        recipe = RECIPES[self.recipe]
        climbing = recipe.momentum_warmup_steps
        return Schedule(
            n_steps,
            warmup_steps=round(self.warmup_ratio * n_steps),
            warmdown_steps=round(self.warmdown_ratio * n_steps),
            final_lr_frac=self.final_lr_frac,
            momentum=recipe.momentum,
            momentum_warmup=min(climbing, n_steps) if recipe.momentum_warmup_fits else climbing,
            decay_weight_decay=recipe.decay_weight_decay,
        )


def base_settings(cfg: BaseConfig, vocab_size: int, world: World) -> Settings:
    """Pretraining: `--depth` gives the rest. Raises ValueError with every value that does not
    fit."""
    if cfg.fp8:
        check_fp8(world.device)
    recipe = RECIPES[cfg.generation]
    shape = shape_for_depth(cfg.depth, cfg.aspect_ratio, cfg.head_dim)
    seq_len = cfg.max_seq_len or 2048
    # Short windows pay on GPUs alone; there the preset decides.
    pattern = cfg.window_pattern or (None if world.device.type == "cuda" else "L")
    model_config = GPTConfig.preset(
        cfg.generation,
        sequence_len=seq_len,
        vocab_size=vocab_size,
        n_layer=shape.n_layer,
        n_head=shape.n_head,
        n_kv_head=cfg.n_kv_head or shape.n_head,
        n_embd=shape.n_embd,
        **({"window_pattern": pattern} if pattern else {}),
    )
    params = scaling_params(cfg.depth, vocab_size, cfg.aspect_ratio, cfg.head_dim)
    reference = scaling_params(REFERENCE_DEPTH, vocab_size, cfg.aspect_ratio, cfg.head_dim)
    if recipe.counts_embedding:
        params += shape.n_embd * vocab_size
    horizon = (cfg.target_param_data_ratio or recipe.tokens_per_parameter) * params
    reference_horizon = recipe.tokens_per_parameter * reference
    total = cfg.total_batch_size or 2**19
    if recipe.follows_horizon and not cfg.total_batch_size:
        total = max(seq_len, batch_tokens(horizon, reference_horizon))
    if cfg.num_iterations and cfg.num_iterations > 0:
        n_steps = cfg.num_iterations
    elif cfg.target_flops and cfg.target_flops > 0:
        n_steps = max(1, round(cfg.target_flops / (flops_per_token(model_config, seq_len) * total)))
    else:
        n_steps = max(1, round(horizon / total))
    optim = optim_settings(cfg, total, recipe)
    if recipe.follows_horizon and cfg.weight_decay is None:
        decay_scale = weight_decay_scale(total, max(horizon, n_steps * total), reference_horizon)
        optim = replace(optim, weight_decay=optim.weight_decay * decay_scale)
    rows, checkpointing = micro_batch(cfg, model_config, seq_len, total, world)
    return Settings(
        recipe.name,
        model_config,
        seq_len,
        rows,
        _checked_total(total, seq_len),
        n_steps,
        optim,
        warmup_ratio=_given(cfg.warmup_ratio, min(0.1, recipe.warmup_steps / n_steps)),
        warmdown_ratio=_given(cfg.warmdown_ratio, recipe.warmdown_ratio),
        final_lr_frac=_given(cfg.final_lr_frac, recipe.final_lr_frac),
        grad_clip=_given(cfg.grad_clip, recipe.grad_clip),
        activation_checkpointing=checkpointing,
        shard_model=cfg.shard_model and world.world_size > 1,
    )


def chat_settings(cfg: ChatTrainConfig | RLConfig, meta: dict[str, Any], world: World) -> Settings:
    """Stages after pretraining: shape and recipe of the source checkpoint, its learning rates times
    init_lr_frac.

    `meta` as `load_model` gives it for rows of `--max-seq-len`: the context is at least as long as
    a row.
    """
    recipe, model_config = recipe_of(meta), GPTConfig(**meta["model_config"])
    seq_len = cfg.max_seq_len or model_config.sequence_len
    assert seq_len <= model_config.sequence_len, (seq_len, model_config.sequence_len)
    total = cfg.total_batch_size or min(2**19, seq_len * max(1, 2**19 // seq_len))
    if cfg.total_batch_size is None and meta.get("total_batch_size"):
        total = max(seq_len, meta["total_batch_size"] // seq_len * seq_len)
    optim = optim_settings(cfg, total, recipe)
    fraction = cfg.init_lr_frac
    optim = replace(
        optim, lr_scale=optim.lr_scale * fraction, scalar_scale=optim.scalar_scale * fraction
    )
    if cfg.weight_decay is None:
        optim = replace(optim, weight_decay=0.0)
    rows, checkpointing = micro_batch(cfg, model_config, seq_len, total, world)
    return Settings(
        recipe.name,
        model_config,
        seq_len,
        rows,
        _checked_total(total, seq_len),
        cfg.num_iterations if cfg.num_iterations and cfg.num_iterations > 0 else None,
        optim,
        warmup_ratio=_given(cfg.warmup_ratio, 0.0),
        warmdown_ratio=_given(cfg.warmdown_ratio, 1.0),
        final_lr_frac=_given(cfg.final_lr_frac, 0.0),
        grad_clip=_given(cfg.grad_clip, 1.0),
        activation_checkpointing=checkpointing,
        shard_model=cfg.shard_model and world.world_size > 1,
    )


def optim_settings(cfg: TrainConfig, total_batch_size: int, recipe: TrainingRecipe) -> OptimConfig:
    """The recipe's learning rates, scaled to the batch where it says so, with the given ones put
    in.
    """
    names = ("embedding_lr", "unembedding_lr", "matrix_lr", "scalar_lr", "weight_decay")
    given = {name: getattr(cfg, name) for name in names if getattr(cfg, name) is not None}
    scale, scalar_scale = lr_scales(total_batch_size) if recipe.follows_horizon else (1.0, 1.0)
    return replace(recipe.optim, lr_scale=scale, scalar_scale=scalar_scale, **given)


def micro_batch(
    cfg: TrainConfig, model_config: GPTConfig, seq_len: int, total_batch_size: int, world: World
) -> tuple[int, bool]:
    """(rows of a micro-batch, activation checkpointing): as asked, else what fits the device's free
    memory.

    Never more rows than a rank's share of the step; the total batch stays the same whatever fits.
    """
    share = max(1, math.ceil(total_batch_size / seq_len / world.world_size))
    checkpointing = cfg.activation_checkpointing
    if cfg.device_batch_size:
        return min(share, cfg.device_batch_size), checkpointing
    rows = min(share, max(1, MICRO_BATCH_TOKENS[world.device.type] // seq_len))
    if world.device.type == "cuda":
        in_pieces, in_rl = (
            cfg.shard_model and world.world_size > 1,
            isinstance(cfg, RLConfig),
        )  # which never compiles
        compiled = not in_rl and wants_compiling("cuda", cfg.compile, in_pieces, total_batch_size)
        how = {"checkpointing": checkpointing, "shard_model": in_pieces, "compiled": compiled}
        rows, checkpointing = rows_on_cuda(
            model_config, rows, None if in_rl else share, seq_len, world, **how
        )
    return rows, checkpointing


def rows_on_cuda(
    config: GPTConfig, most: int, step_rows: int | None, seq_len: int, world: World, **how: bool
) -> tuple[int, bool]:
    """What fits the card with least free memory; one row where by the plan nothing does, for the
    plan is careful.
    """
    free = min(world.gather_objects(torch.cuda.mem_get_info(world.device)[0]))
    rows, checkpointing = fitting_rows(
        config,
        most,
        seq_len,
        USABLE_MEMORY * free,
        step_rows,
        world_size=world.world_size,
        element_bytes=pick_dtype(world.device).itemsize,
        **how,
    )
    return max(1, rows), checkpointing


def _checked_total(total_batch_size: int, seq_len: int) -> int:
    if total_batch_size % seq_len:
        raise ValueError(
            f"--total-batch-size={total_batch_size}: must be a multiple of "
            f"--max-seq-len={seq_len}; "
            f"use e.g. {max(1, round(total_batch_size / seq_len)) * seq_len}"
        )
    return total_batch_size


def _given(value: float | None, otherwise: float) -> float:
    return otherwise if value is None else value
