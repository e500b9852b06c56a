"""Muon: momentum, orthogonalised, for stacks of equally shaped matrices.

Shape legend: K matrices of a stack, R rows, C columns. Sources: Muon (Jordan et al. 2024), Polar
Express (arXiv 2505.16932), NorMuon (arXiv 2510.05491), row equilibration (arXiv 2603.28254),
cautious weight decay (arXiv 2510.12402).
"""

from __future__ import annotations

import torch
from torch import Tensor

from nanochat.optim.training_recipe import MuonOptions

Coefficients = tuple[tuple[float, float, float], ...]
POLYNOMIALS: dict[str, Coefficients] = {
    "newton_schulz": ((3.4445, -4.7750, 2.0315),) * 5,
    "polar_express": (
        (8.156554524902461, -22.48329292557795, 15.878769915207462),
        (4.042929935166739, -2.808917465908714, 0.5000178451051316),
        (3.8916678022926607, -2.772484153217685, 0.5060648178503393),
        (3.285753657755655, -2.3681294933425376, 0.46449024233003106),
        (2.3465413258596377, -1.7097828382687081, 0.42323551169305323),
    ),
}


@torch.no_grad()
def orthogonalize(
    stack: Tensor,
    coefficients: Coefficients,
    dtype: torch.dtype = torch.bfloat16,
) -> Tensor:
    """(K, R, C) -> about the nearest semi-orthogonal matrices, by odd polynomials computed in
    `dtype`.

    Scaled before the conversion: in fp16 a small gradient would vanish and a large one overflow.
    """
    tall = stack.size(-2) > stack.size(-1)
    x = (stack / (stack.norm(dim=(-2, -1), keepdim=True) * 1.02 + 1e-6)).to(dtype)
    if tall:
        x = x.mT
    for a, b, c in coefficients:
        gram = x @ x.mT
        x = torch.baddbmm(x, torch.baddbmm(gram, gram, gram, beta=b, alpha=c), x, beta=a)
    return x.mT if tall else x


@torch.no_grad()
def muon_update(
    parameters: Tensor,
    grads: Tensor,
    state: dict[str, Tensor],
    *,
    lr: float,
    momentum: float,
    weight_decay: float,
    options: MuonOptions,
    dtype: torch.dtype = torch.bfloat16,
) -> None:
    """One step on a stack of parameters (K, R, C), in place, orthogonalised in `dtype`. `state`
    holds `momentum` and, for NorMuon, `second`.
    """
    buffer = state.setdefault("momentum", torch.zeros_like(grads))
    buffer.lerp_(grads, 1 - momentum)
    update = grads.lerp(buffer, momentum)  # Nesterov
    if options.equilibrate_rows:
        update = update / update.norm(dim=-1, keepdim=True).clamp_min(1e-10)
    update = orthogonalize(update, POLYNOMIALS[options.polynomial], dtype).to(parameters.dtype)
    if options.beta2:
        update = _normalize_neurons(update, state, options.beta2)
    lr = lr * max(1.0, parameters.size(-2) / parameters.size(-1)) ** 0.5
    if weight_decay:
        decay = parameters * (lr * weight_decay)
        parameters.sub_(decay * (update * parameters >= 0) if options.cautious else decay)
    parameters.sub_(update, alpha=lr)


def _normalize_neurons(update: Tensor, state: dict[str, Tensor], beta2: float) -> Tensor:
    """Divide each neuron's update by the root of its running mean square, keeping the norm of the
    whole matrix.
    """
    axis = -1 if update.size(-2) >= update.size(-1) else -2
    square = update.square().mean(dim=axis, keepdim=True)
    second = state.setdefault("second", torch.zeros_like(square))
    second.lerp_(square, 1 - beta2)
    scaled = update * second.clamp_min(1e-10).rsqrt()
    return scaled * (
        update.norm(dim=(-2, -1), keepdim=True)
        / scaled.norm(dim=(-2, -1), keepdim=True).clamp_min(1e-10)
    )
