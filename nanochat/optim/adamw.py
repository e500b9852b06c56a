"""AdamW with decoupled weight decay (arXiv 1711.05101) as a pure update of one tensor."""

from __future__ import annotations

import torch
from torch import Tensor


@torch.no_grad()
def adamw_update(
    parameter: Tensor,
    grad: Tensor,
    state: dict[str, Tensor],
    *,
    step: int,
    lr: float,
    betas: tuple[float, float],
    eps: float,
    weight_decay: float,
) -> None:
    """One step on `parameter`, in place. `state` holds exp_avg and exp_avg_sq; `step` counts from
    1.
    """
    beta1, beta2 = betas
    exp_avg = state.setdefault("exp_avg", torch.zeros_like(parameter))
    exp_avg_sq = state.setdefault("exp_avg_sq", torch.zeros_like(parameter))
    exp_avg.lerp_(grad, 1 - beta1)
    exp_avg_sq.mul_(beta2).addcmul_(grad, grad, value=1 - beta2)
    if weight_decay:
        parameter.mul_(1 - lr * weight_decay)
    denominator = (exp_avg_sq / (1 - beta2**step)).sqrt_().add_(eps)
    parameter.addcdiv_(exp_avg, denominator, value=-lr / (1 - beta1**step))
