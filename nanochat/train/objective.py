"""The one objective: weighted negative log-likelihood, summed, without ever holding (B, T, V)
logits.

Pretraining and midtraining weigh every target 1, fine-tuning weighs by the loss mask, reinforcement
learning by the advantage. The caller divides by the global count of weighted targets, so neither
micro-batches nor ranks change a result.

Shape legend: N = B*T positions, D model width, V vocabulary.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from nanochat.dataloader.loader import Batch
from nanochat.gpt import GPT

# Logits alive at once, and the fp32 part of them being worked on. On a CPU both must stay in cache:
# measured on two cores at V = 8,192, 8 MiB / 2 MiB takes 143 ms for 8,192 positions, one pass over
# all logits 300 ms and more.
CHUNK_BYTES = {"cpu": 8 * 2**20, "cuda": 128 * 2**20}
BLOCK_BYTES = {"cpu": 2 * 2**20, "cuda": 128 * 2**20}


def loss_sum_and_count(
    model: GPT, batch: Batch, forward: Callable[[Tensor], Tensor] | None = None
) -> tuple[Tensor, Tensor]:
    """Weighted NLL of `batch` (B, T) in nats -> (sum, number of targets with a weight), both fp32
    scalars.

    A batch without targets gives (0, 0), never NaN. `forward` may be a compiled `model.hidden`.
    """
    hidden = (forward or model.hidden)(batch.input_ids)
    weights = batch.weights.reshape(-1)
    total = _ChunkedNLL.apply(
        hidden.reshape(-1, hidden.size(-1)),
        model.lm_head.weight,
        batch.targets.reshape(-1),
        weights,
        model.config.vocab_size,
        model.config.logit_softcap,
    )
    return total, (weights != 0).sum().float()


class _ChunkedNLL(torch.autograd.Function):
    """Sum over positions of weight * NLL(target), from activations (N, D) and the head's weight (V
    or more, D).

    The logits of a chunk are formed, softcapped and overwritten by their own gradient in the
    forward pass, so nothing of size N x V exists and nothing is computed twice.
    """

    @staticmethod
    def forward(  # noqa: PLR0917  (autograd passes them by position)
        ctx: Any,
        hidden: Tensor,
        weight: Tensor,
        targets: Tensor,
        weights: Tensor,
        vocab_size: int,
        softcap: float,
    ) -> Tensor:
        wants_grad = any(ctx.needs_input_grad[:2])
        head = weight[:vocab_size].to(hidden.dtype)
        chunk = _rows(CHUNK_BYTES, hidden, vocab_size, hidden.element_size())
        block = min(chunk, _rows(BLOCK_BYTES, hidden, vocab_size, 4))
        buffers = torch.empty(2, block, vocab_size, dtype=torch.float32, device=hidden.device)
        total = torch.zeros((), dtype=torch.float32, device=hidden.device)
        grad_hidden = torch.empty_like(hidden) if wants_grad else None
        grad_weight = torch.zeros_like(weight, dtype=torch.float32) if wants_grad else None
        for start in range(0, hidden.size(0), chunk):
            rows = slice(start, start + chunk)
            logits = hidden[rows] @ head.t()
            for parts in zip(
                logits.split(block),
                targets[rows].split(block),
                weights[rows].split(block),
                strict=True,
            ):
                total += _nll_block(*parts, softcap, buffers, wants_grad)
            if grad_hidden is not None and grad_weight is not None:
                torch.mm(logits, head, out=grad_hidden[rows])
                grad_weight[:vocab_size] += logits.t() @ hidden[rows]
        if wants_grad:
            ctx.save_for_backward(grad_hidden, grad_weight)
        return total

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:
        grad_hidden, grad_weight = ctx.saved_tensors
        # In place: a second fp32 copy of the head's gradient would be 0.3 GB for a d20.
        return (
            grad_hidden.mul_(grads[0].to(grad_hidden.dtype)),
            grad_weight.mul_(grads[0]),
            None,
            None,
            None,
            None,
        )


def _rows(budget_bytes: dict[str, int], hidden: Tensor, vocab_size: int, element_bytes: int) -> int:
    budget = budget_bytes.get(hidden.device.type, budget_bytes["cuda"])
    return max(1, min(hidden.size(0), budget // (vocab_size * element_bytes)))


def _nll_block(
    logits: Tensor,
    targets: Tensor,
    weights: Tensor,
    softcap: float,
    buffers: Tensor,
    wants_grad: bool,
) -> Tensor:
    """Sum of weight * NLL for raw logits (n, V), which are overwritten by their gradient.

    The softcap bounds logits, so exp cannot overflow and no maximum is subtracted.
    """
    capped, grad = buffers[0, : len(logits)], buffers[1, : len(logits)]
    capped.copy_(logits).div_(softcap).tanh_()
    torch.mul(capped, softcap, out=grad).exp_()
    z = grad.sum(dim=-1)
    target = targets[:, None]
    nll = z.log() - softcap * capped.gather(1, target)[:, 0]
    if wants_grad:
        grad.mul_((weights / z)[:, None]).scatter_add_(
            1, target, -weights[:, None]
        )  # softmax - onehot, weighted
        grad.addcmul_(grad, capped.square_(), value=-1)  # through the softcap: times 1 - tanh^2
        logits.copy_(grad)
    return (nll * weights).sum()
