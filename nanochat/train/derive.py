"""One dial, `--depth`: everything that decides what a run learns, step by step, each formula with
its source.

Pure: flags and plain numbers in, a frozen `Settings` out. A flag that is given replaces what would
follow. How many rows a device computes at once changes no result and is decided in micro_batch.py.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import Any

from nanochat.cost import flops_per_token
from nanochat.gpt_config import GPTConfig
from nanochat.optim.schedule import Schedule
from nanochat.optim.training_recipe import RECIPES, OptimConfig, TrainingRecipe, recipe_of
from nanochat.train.configs import BaseConfig, ChatTrainConfig, TrainConfig
from nanochat.train.rl_configs import RLConfig

REFERENCE_DEPTH = 12
REFERENCE_BATCH_TOKENS = 2**19


@dataclass(frozen=True, kw_only=True)
class Settings:
    """What a run is given besides data and weights. n_steps None: follows from the length of the
    data.
    """

    recipe: str
    model_config: GPTConfig
    seq_len: int
    total_batch_size: int  # tokens
    n_steps: int | None
    optim: OptimConfig
    warmup_ratio: float
    warmdown_ratio: float
    final_lr_frac: float
    grad_clip: float

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


# --- 1. Shape


@dataclass(frozen=True)
class ModelShape:
    """Width and heads of a model of some depth."""

    n_layer: int
    n_embd: int
    n_head: int


def shape_for_depth(depth: int, aspect_ratio: int = 64, head_dim: int = 128) -> ModelShape:
    """Width = depth * aspect_ratio rounded up to a multiple of head_dim; one head per head_dim of
    it.
    """
    width = -(-depth * aspect_ratio // head_dim) * head_dim
    return ModelShape(depth, width, width // head_dim)


# --- 2. Parameters that count


def scaling_params(depth: int, vocab_size: int, aspect_ratio: int = 64, head_dim: int = 128) -> int:
    """Parameters that scaling laws count: the matrices of the blocks (12 width^2 each) and the
    head, no embeddings.
    """
    width = shape_for_depth(depth, aspect_ratio, head_dim).n_embd
    return 12 * depth * width**2 + width * vocab_size


# --- 3. Horizon: the tokens of a run, so many for each parameter as the recipe says

# --- 4. Batch


def batch_tokens(horizon_tokens: float, reference_horizon_tokens: float) -> int:
    """Total batch: proportional to horizon^0.383 (arXiv 2505.13738), through 2^19 at depth 12; a
    power of two.
    """
    exact = REFERENCE_BATCH_TOKENS * (horizon_tokens / reference_horizon_tokens) ** 0.383
    return 2 ** round(math.log2(exact))


# --- 5. Steps: as many as are given, or as the FLOPs that are given pay for, or horizon / batch


def step_count(
    config: GPTConfig, seq_len: int, total_batch_size: int, horizon_tokens: float, cfg: BaseConfig
) -> int:
    if cfg.num_iterations and cfg.num_iterations > 0:
        return cfg.num_iterations
    if cfg.target_flops and cfg.target_flops > 0:
        step_flops = flops_per_token(config, seq_len) * total_batch_size
        return max(1, round(cfg.target_flops / step_flops))
    return max(1, round(horizon_tokens / total_batch_size))


# --- 6. Learning rates: those of the recipe (optim/training_recipe.py) times a scale of the batch

# Tiny batches belong to short runs, for which the square root alone is far too careful: d4, 240
# steps of 8,192 tokens of prose reached 1.943 bits per byte at 0.125 (the square root), 1.778 at
# 0.5 (docs/LOG.md).
LEAST_LR_SCALE = 0.5


def lr_scales(total_batch_tokens: int) -> tuple[float, float]:
    """(of tables and matrices, of scalars): the square root of the batch, 1 at 2^19 tokens; the
    first at least half.

    The scale of the scalars has no least value: at four times the square root the run above ended
    0.06 bits per byte worse.
    """
    exact = math.sqrt(total_batch_tokens / REFERENCE_BATCH_TOKENS)
    return max(LEAST_LR_SCALE, exact), exact


def optim_settings(cfg: TrainConfig, total_batch_size: int, recipe: TrainingRecipe) -> OptimConfig:
    """The recipe's learning rates, scaled to the batch where it says so, with the given ones put
    in.
    """
    names = ("embedding_lr", "unembedding_lr", "matrix_lr", "scalar_lr", "weight_decay")
    given = {name: getattr(cfg, name) for name in names if getattr(cfg, name) is not None}
    scale, scalar_scale = lr_scales(total_batch_size) if recipe.follows_horizon else (1.0, 1.0)
    return replace(recipe.optim, lr_scale=scale, scalar_scale=scalar_scale, **given)


# --- 7. Weight decay


def weight_decay_scale(
    total_batch_tokens: int, horizon_tokens: float, reference_horizon_tokens: float
) -> float:
    """Decay that keeps the averaging time of AdamW a fixed share of the run (arXiv 2405.13698).

    `horizon_tokens` is at least the recipe's own: in a run cut short, whether by --num-iterations
    or by --target-param-data-ratio, the weights are to lose no more than they would in a whole one.
    Followed to a hundredth of the ratio, the formula alone would give a decay of 392 and take more
    from the weights in each step than there is.
    """
    return (
        math.sqrt(total_batch_tokens / REFERENCE_BATCH_TOKENS)
        * reference_horizon_tokens
        / horizon_tokens
    )


# --- 8. Schedule: warmup, warmdown and momentum of the recipe


# --- All of them in order


def pretraining(cfg: BaseConfig, vocab_size: int, device_type: str) -> Settings:
    """Settings of a base model: `--depth` gives the rest. ValueError where values do not fit each
    other.
    """
    recipe = RECIPES[cfg.generation]
    seq_len = cfg.max_seq_len or 2048
    shape = shape_for_depth(cfg.depth, cfg.aspect_ratio, cfg.head_dim)  # 1
    # Short windows pay on GPUs alone; there the preset decides.
    pattern = cfg.window_pattern or (None if device_type == "cuda" else "L")
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
    params = scaling_params(cfg.depth, vocab_size, cfg.aspect_ratio, cfg.head_dim)  # 2
    reference = scaling_params(REFERENCE_DEPTH, vocab_size, cfg.aspect_ratio, cfg.head_dim)
    if recipe.counts_embedding:
        params += shape.n_embd * vocab_size
    whole_horizon = recipe.tokens_per_parameter * params
    horizon = (cfg.target_param_data_ratio or recipe.tokens_per_parameter) * params  # 3
    reference_horizon = recipe.tokens_per_parameter * reference
    total = cfg.total_batch_size or REFERENCE_BATCH_TOKENS  # 4
    if recipe.follows_horizon and not cfg.total_batch_size:
        total = max(seq_len, batch_tokens(horizon, reference_horizon))
    n_steps = step_count(model_config, seq_len, total, horizon, cfg)  # 5
    optim = optim_settings(cfg, total, recipe)  # 6
    if recipe.follows_horizon and cfg.weight_decay is None:  # 7
        longest = max(whole_horizon, horizon, n_steps * total)
        decay_scale = weight_decay_scale(total, longest, reference_horizon)
        optim = replace(optim, weight_decay=optim.weight_decay * decay_scale)
    return Settings(  # 8
        recipe=recipe.name,
        model_config=model_config,
        seq_len=seq_len,
        total_batch_size=whole_rows(total, seq_len),
        n_steps=n_steps,
        optim=optim,
        warmup_ratio=given(cfg.warmup_ratio, min(0.1, recipe.warmup_steps / n_steps)),
        warmdown_ratio=given(cfg.warmdown_ratio, recipe.warmdown_ratio),
        final_lr_frac=given(cfg.final_lr_frac, recipe.final_lr_frac),
        grad_clip=given(cfg.grad_clip, recipe.grad_clip),
    )


def later_stage(cfg: ChatTrainConfig | RLConfig, meta: dict[str, Any]) -> Settings:
    """Settings of a stage after pretraining: shape, batch and recipe of the source checkpoint, its
    learning rates times init_lr_frac, no weight decay, falling to 0 from the first step on.

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
    optim = replace(
        optim,
        lr_scale=optim.lr_scale * cfg.init_lr_frac,
        scalar_scale=optim.scalar_scale * cfg.init_lr_frac,
        weight_decay=given(cfg.weight_decay, 0.0),
    )
    return Settings(
        recipe=recipe.name,
        model_config=model_config,
        seq_len=seq_len,
        total_batch_size=whole_rows(total, seq_len),
        n_steps=cfg.num_iterations if cfg.num_iterations and cfg.num_iterations > 0 else None,
        optim=optim,
        warmup_ratio=given(cfg.warmup_ratio, 0.0),
        warmdown_ratio=given(cfg.warmdown_ratio, 1.0),
        final_lr_frac=given(cfg.final_lr_frac, 0.0),
        grad_clip=given(cfg.grad_clip, 1.0),
    )


def reinforcement(cfg: RLConfig, meta: dict[str, Any], n_questions: int) -> Settings:
    """Settings of reinforcement learning: those of every later stage, the steps from the
    questions.
    """
    settings = later_stage(cfg, meta)
    batches = max(1, math.ceil(cfg.num_epochs * n_questions / cfg.examples_per_step))
    return replace(settings, n_steps=settings.n_steps or batches * cfg.updates_per_batch)


def whole_rows(total_batch_size: int, seq_len: int) -> int:
    """The batch, checked to be whole rows."""
    if total_batch_size % seq_len:
        raise ValueError(
            f"--total-batch-size={total_batch_size}: must be a multiple of "
            f"--max-seq-len={seq_len}; "
            f"use e.g. {max(1, round(total_batch_size / seq_len)) * seq_len}"
        )
    return total_batch_size


def given(value: float | None, otherwise: float) -> float:
    return otherwise if value is None else value
