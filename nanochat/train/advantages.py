"""From rewards to the weight of each token in the one objective, sum of weight * NLL. Pure: no
model, no sampling.

NLL is -log p(token), so a weight w contributes w * grad log p to the update. Everything
reinforcement learning adds to the policy gradient (a clipped ratio, a pull towards the starting
model) is a weight computed from detached log-probabilities whose gradient is exactly that of the
published loss.

Shape legend: G samples of one question, any shape for token tensors.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Literal

import torch
from torch import Tensor

Baseline = Literal["mean", "grpo", "loo"]


def advantages(rewards: Sequence[float], baseline: Baseline = "mean") -> list[float]:
    """How much better each of the G answers to one question was than the others.

    "mean": reward - mean of the group (arXiv 2503.20783). "grpo": that divided by the group's
    standard deviation, so that easy and hard questions count alike (arXiv 2402.03300). "loo":
    reward - mean of the other answers (arXiv 2402.14740), the unbiased form: G / (G - 1) times
    "mean". Equal rewards give exact zeros: nothing to learn. ValueError for an unknown baseline or
    a single answer, which there is nothing to compare with.
    """
    n = len(rewards)
    if baseline not in ("mean", "grpo", "loo"):
        raise ValueError(f"--advantage={baseline}: use mean, grpo or loo")
    if n < 2:
        raise ValueError(f"--num-samples={n}: needs at least 2 answers to a question to compare")
    if min(rewards) == max(rewards):
        return [0.0] * n
    mean = math.fsum(rewards) / n
    centred = [reward - mean for reward in rewards]
    if baseline == "mean":
        return centred
    if baseline == "loo":
        return [value * n / (n - 1) for value in centred]
    largest = max(map(abs, centred))  # scaled first: the squares of tiny rewards would vanish
    deviation = largest * math.sqrt(math.fsum((value / largest) ** 2 for value in centred) / n)
    return [value / deviation for value in centred]


def clipped_weights(
    advantage: Tensor, logprobs: Tensor, old_logprobs: Tensor, clip: float
) -> Tensor:
    """Weights that give the gradient of PPO's clipped surrogate min(r A, clamp(r, 1 +- clip) A)
    (arXiv 1707.06347).

    r = exp(logprobs - old_logprobs) is how much likelier the token has become since it was drawn.
    The surrogate is flat where r has already gone beyond the clip in the direction of A; elsewhere
    its gradient is r A grad log p.
    """
    ratio = (logprobs - old_logprobs).exp()
    gone = torch.where(advantage > 0, ratio > 1 + clip, ratio < 1 - clip)
    return (advantage * ratio).masked_fill(gone, 0.0)


def kl_weights(logprobs: Tensor, reference: Tensor, coefficient: float) -> Tensor:
    """Weights whose expected gradient is that of -coefficient * KL(model || reference), for tokens
    drawn by the model.

    grad KL = E[(log p - log q) grad log p]: for each token the loss coefficient * (log p - log q)^2
    / 2, whose gradient has this expectation. The "k3" form that GRPO differentiates does not, and
    explodes where q is much above p.
    """
    return coefficient * (reference - logprobs)


def kl_estimate(logprobs: Tensor, reference: Tensor) -> Tensor:
    """KL(model || reference) of each token drawn by the model: unbiased, never negative (Schulman's
    "k3").
    """
    difference = reference - logprobs
    return difference.exp() - 1 - difference
