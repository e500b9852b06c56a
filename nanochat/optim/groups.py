"""Which parameter is trained how: every parameter exactly once, and the published settings of each
generation.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import torch
from torch import Tensor

from nanochat.gpt import GPT
from nanochat.optim.muon import NEWTON_SCHULZ, POLAR_EXPRESS, MuonOptions

# At the first step every projection is zero, so the gradient of the residual scalars is rounding
# noise (1e-10; 1e-4 from the second step on). With the published eps of 1e-10 AdamW makes full
# steps of that noise: the losses of 1 and 2 processes then differ by 3e-3 within 50 steps instead
# of 4e-5.
SCALAR_EPS = 1e-7


@dataclass(frozen=True)
class OptimConfig:
    """Learning rates at full scale, before the run's schedule.

    `lr_scale` carries the batch-size correction, `scalar_scale` that of the learned scalars
    (residual mixing, smear, backout).
    """

    embedding_lr: float
    unembedding_lr: float
    matrix_lr: float
    scalar_lr: float
    weight_decay: float
    lr_scale: float = 1.0
    scalar_scale: float = 1.0


@dataclass
class Group:
    """Parameters that share an update rule. `kind` muon groups hold matrices of one shape."""

    name: str
    kind: str
    parameters: list[Tensor]
    lr: float
    betas: tuple[float, float] = (0.8, 0.95)
    eps: float = 1e-10
    weight_decay: float = 0.0
    muon: MuonOptions = field(default_factory=MuonOptions)


def published_settings(generation: str) -> OptimConfig:
    """The learning rates and weight decay of the generation's published recipe."""
    if generation == "modern":
        return OptimConfig(
            embedding_lr=0.3, unembedding_lr=0.008, matrix_lr=0.02, scalar_lr=0.5, weight_decay=0.28
        )
    return OptimConfig(
        embedding_lr=0.2, unembedding_lr=0.004, matrix_lr=0.02, scalar_lr=0.0, weight_decay=0.0
    )


def parameter_groups(model: GPT, config: OptimConfig) -> list[Group]:
    """Split `model` into optimizer groups; asserts that each parameter is in exactly one."""
    modern = model.config.generation == "modern"
    scale, scalar_lr = config.lr_scale, config.scalar_lr * config.scalar_scale
    wide = scale * (model.config.n_embd / 768) ** -0.5  # embedding-like rates follow 1/sqrt(width)
    dtype = model.compute_dtype or model.lm_head.weight.dtype
    options = MuonOptions(tuple(NEWTON_SCHULZ), dtype=dtype)
    if modern:
        options = MuonOptions(
            tuple(POLAR_EXPRESS), beta2=0.9, equilibrate_rows=True, cautious=True, dtype=dtype
        )
    head_betas, embedding_betas = (
        ((0.8, 0.96), (0.8, 0.995)) if modern else ((0.8, 0.95), (0.8, 0.95))
    )
    groups = [
        Group(
            "head",
            "adamw",
            [model.lm_head.weight],
            config.unembedding_lr * wide,
            head_betas,
            weight_decay=0.01 * modern,
        ),
        Group(
            "embedding",
            "adamw",
            [model.wte.weight],
            config.embedding_lr * wide,
            embedding_betas,
            weight_decay=0.001 * modern,
        ),
    ]
    if modern:
        tables: list[Tensor] = [
            model.value_embedding(int(layer)).weight for layer in model.value_embeds
        ]
        groups += [
            Group(
                "value_embeds",
                "adamw",
                tables,
                0.5 * config.embedding_lr * wide,
                (0.8, 0.995),
                weight_decay=0.01,
            ),
            Group(
                "resid_lambdas",
                "adamw",
                [model.resid_lambdas],
                0.01 * scalar_lr,
                eps=SCALAR_EPS,
                weight_decay=0.05,
            ),
            Group("x0_lambdas", "adamw", [model.x0_lambdas], scalar_lr, (0.96, 0.95), SCALAR_EPS),
        ]
        small: list[Tensor] = [model.smear_gate.weight, model.smear_lambda, model.backout_lambda]
        groups.append(
            Group("smear_backout", "adamw", small, 0.2 * config.scalar_scale, eps=SCALAR_EPS)
        )
    by_shape: dict[torch.Size, list[Tensor]] = {}
    for parameter in model.transformer["h"].parameters():
        by_shape.setdefault(parameter.shape, []).append(parameter)
    for shape, matrices in by_shape.items():
        name = "matrices_" + "x".join(map(str, shape))
        decay = config.weight_decay
        groups.append(
            Group(
                name, "muon", matrices, config.matrix_lr * scale, weight_decay=decay, muon=options
            )
        )
    grouped = [id(parameter) for group in groups for parameter in group.parameters]
    assert len(grouped) == len(set(grouped)), "a parameter is in two groups"
    assert set(grouped) == {id(p) for p in model.parameters()}, "a parameter is in no group"
    return groups
