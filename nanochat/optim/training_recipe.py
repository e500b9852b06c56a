"""The two published ways to train: rates, schedule and horizon, each a record of numbers."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

Betas = tuple[float, float]


@dataclass(frozen=True, kw_only=True)
class MuonOptions:
    """What a recipe adds to plain Muon."""

    polynomial: Literal["newton_schulz", "polar_express"] = "newton_schulz"
    beta2: float = 0.0  # NorMuon's second moment; 0 leaves it out
    equilibrate_rows: bool = False
    cautious: bool = False


@dataclass(frozen=True, kw_only=True)
class OptimConfig:
    """What the optimizer is told: learning rates at full scale, before the run's schedule.

    `lr_scale` carries the batch-size correction, `scalar_scale` that of the learned scalars
    (residual mixing, smear, backout). `weight_decay` is that of the matrices.
    """

    embedding_lr: float
    unembedding_lr: float
    matrix_lr: float
    scalar_lr: float
    weight_decay: float
    embedding_betas: Betas = (0.8, 0.95)
    embedding_weight_decay: float = 0.0
    head_betas: Betas = (0.8, 0.95)
    head_weight_decay: float = 0.0
    muon: MuonOptions = field(default_factory=MuonOptions)
    lr_scale: float = 1.0
    scalar_scale: float = 1.0


@dataclass(frozen=True, kw_only=True)
class TrainingRecipe:
    """How a model of any depth is trained."""

    name: str
    optim: OptimConfig
    tokens_per_parameter: float
    counts_embedding: bool  # among those parameters; else the matrices and the head
    # Batch, learning rates and weight decay follow the horizon; else 2^19 tokens a step and the
    # rates as they are.
    follows_horizon: bool
    warmup_steps: int  # at most a tenth of the run
    warmdown_ratio: float
    final_lr_frac: float
    momentum: tuple[float, float, float]  # at the start, after its warmup, at the end
    momentum_warmup_steps: int
    momentum_warmup_fits: bool  # made shorter for a run that is shorter
    decay_weight_decay: bool
    grad_clip: float  # 0: none


CLASSIC = TrainingRecipe(
    name="classic",
    optim=OptimConfig(
        embedding_lr=0.2, unembedding_lr=0.004, matrix_lr=0.02, scalar_lr=0.0, weight_decay=0.0
    ),
    tokens_per_parameter=20.0,
    counts_embedding=True,
    follows_horizon=False,
    warmup_steps=0,
    warmdown_ratio=0.2,
    final_lr_frac=0.0,
    momentum=(0.85, 0.95, 0.95),
    momentum_warmup_steps=300,
    momentum_warmup_fits=False,
    decay_weight_decay=False,
    grad_clip=1.0,
)
MODERN = TrainingRecipe(
    name="modern",
    optim=OptimConfig(
        embedding_lr=0.3,
        unembedding_lr=0.008,
        matrix_lr=0.02,
        scalar_lr=0.5,
        weight_decay=0.28,
        embedding_betas=(0.8, 0.995),
        embedding_weight_decay=0.001,
        head_betas=(0.8, 0.96),
        head_weight_decay=0.01,
        muon=MuonOptions(
            polynomial="polar_express", beta2=0.9, equilibrate_rows=True, cautious=True
        ),
    ),
    tokens_per_parameter=12.0,
    counts_embedding=False,
    follows_horizon=True,
    warmup_steps=40,
    warmdown_ratio=0.65,
    final_lr_frac=0.05,
    momentum=(0.85, 0.97, 0.90),
    momentum_warmup_steps=400,
    momentum_warmup_fits=True,
    decay_weight_decay=True,
    grad_clip=0.0,
)
RECIPES = {recipe.name: recipe for recipe in (CLASSIC, MODERN)}


def recipe_of(meta: Mapping[str, Any]) -> TrainingRecipe:
    """The recipe that a loaded checkpoint was trained by. Files that do not name it: models with
    learned residual scalars came with the modern one.
    """
    known = "modern" if meta["model_config"].get("residual_mixing") else "classic"
    return RECIPES[meta.get("recipe", known)]
