"""Which parameter is trained how: every parameter exactly once."""

from __future__ import annotations

from dataclasses import dataclass, field

import torch
from torch import Tensor

from nanochat.gpt import GPT
from nanochat.optim.training_recipe import Betas, MuonOptions, OptimConfig

# At the first step every projection is zero, so the gradient of the residual scalars is rounding
# noise (1e-10; 1e-4 from the second step on). With the published eps of 1e-10 AdamW makes full
# steps of that noise: the losses of 1 and 2 processes then differ by 3e-3 within 50 steps instead
# of 4e-5.
SCALAR_EPS = 1e-7


@dataclass(kw_only=True)
class Group:
    """Parameters that share an update rule. `kind` muon groups hold matrices of one shape."""

    name: str
    kind: str
    parameters: list[Tensor]
    lr: float
    betas: Betas = (0.8, 0.95)
    eps: float = 1e-10
    weight_decay: float = 0.0
    muon: MuonOptions = field(default_factory=MuonOptions)
    dtype: torch.dtype = torch.bfloat16  # of Muon's products: the type the model computes in


def parameter_groups(model: GPT, config: OptimConfig) -> list[Group]:
    """Split `model` into optimizer groups; asserts that each parameter is in exactly one."""
    groups = [*_table_groups(model, config), *_scalar_groups(model, config)]
    groups += _matrix_groups(model, config)
    grouped = [id(parameter) for group in groups for parameter in group.parameters]
    assert len(grouped) == len(set(grouped)), "a parameter is in two groups"
    assert set(grouped) == {id(p) for p in model.parameters()}, "a parameter is in no group"
    return groups


def _table_groups(model: GPT, config: OptimConfig) -> list[Group]:
    # Rates of whatever is indexed by token follow 1/sqrt(width).
    wide = config.lr_scale * (model.config.n_embd / 768) ** -0.5
    groups = [
        Group(
            name="head",
            kind="adamw",
            parameters=[model.lm_head.weight],
            lr=config.unembedding_lr * wide,
            betas=config.head_betas,
            weight_decay=config.head_weight_decay,
        ),
        Group(
            name="embedding",
            kind="adamw",
            parameters=[model.wte.weight],
            lr=config.embedding_lr * wide,
            betas=config.embedding_betas,
            weight_decay=config.embedding_weight_decay,
        ),
    ]
    if model.config.value_embeddings:
        groups.append(
            Group(
                name="value_embeds",
                kind="adamw",
                parameters=[table.weight for table in model.value_tables()],
                lr=0.5 * config.embedding_lr * wide,
                betas=(0.8, 0.995),
                weight_decay=0.01,
            )
        )
    return groups


def _scalar_groups(model: GPT, config: OptimConfig) -> list[Group]:
    groups = []
    if model.config.residual_mixing:
        lr = config.scalar_lr * config.scalar_scale
        groups += [
            Group(
                name="resid_lambdas",
                kind="adamw",
                parameters=[model.resid_lambdas],
                lr=0.01 * lr,
                eps=SCALAR_EPS,
                weight_decay=0.05,
            ),
            Group(
                name="x0_lambdas",
                kind="adamw",
                parameters=[model.x0_lambdas],
                lr=lr,
                betas=(0.96, 0.95),
                eps=SCALAR_EPS,
            ),
        ]
    small: list[Tensor] = []
    if model.config.smear:
        small += [model.smear_gate.weight, model.smear_lambda]
    if model.config.backout:
        small.append(model.backout_lambda)
    if small:
        lr = 0.2 * config.scalar_scale
        groups.append(
            Group(name="smear_backout", kind="adamw", parameters=small, lr=lr, eps=SCALAR_EPS)
        )
    return groups


def _matrix_groups(model: GPT, config: OptimConfig) -> list[Group]:
    by_shape: dict[torch.Size, list[Tensor]] = {}
    for parameter in model.transformer["h"].parameters():
        by_shape.setdefault(parameter.shape, []).append(parameter)
    return [
        Group(
            name="matrices_" + "x".join(map(str, shape)),
            kind="muon",
            parameters=matrices,
            lr=config.matrix_lr * config.lr_scale,
            weight_decay=config.weight_decay,
            muon=config.muon,
            dtype=model.compute_dtype or model.lm_head.weight.dtype,
        )
        for shape, matrices in by_shape.items()
    ]
