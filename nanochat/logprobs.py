"""What a model thinks of given tokens: log-probabilities, without ever holding the logits of all
positions. For evaluation, validation and reinforcement learning alike; the loss that is trained on
has a backward pass of its own (train/objective.py).

Shape legend: N positions, D model width, V vocabulary.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from nanochat.gpt import GPT

CHUNK_BYTES = {"cpu": 8 * 2**20, "cuda": 512 * 2**20}  # fp32 logits alive at once


@dataclass(frozen=True, kw_only=True)
class TargetScores:
    """Of N targets: log p in nats (N) fp32; whether each is the likeliest token (N) bool; and the
    entropy in nats (N) of the distributions, where it was asked for.
    """

    logprobs: Tensor
    greedy: Tensor
    entropies: Tensor | None = None


@torch.no_grad()
def target_logprobs(
    model: GPT, hidden: Tensor, targets: Tensor, *, with_entropy: bool = False
) -> TargetScores:
    """Score `targets` (N) given activations before the head, `hidden` (N, D)."""
    budget = CHUNK_BYTES.get(hidden.device.type, CHUNK_BYTES["cuda"])
    n_rows = max(1, budget // (4 * model.config.vocab_size))
    logprobs = [hidden.new_zeros(0, dtype=torch.float32)]
    greedy = [hidden.new_zeros(0, dtype=torch.bool)]
    entropies = [hidden.new_zeros(0, dtype=torch.float32)]
    for rows, wanted in zip(hidden.split(n_rows), targets.split(n_rows), strict=True):
        logits = model.head(rows)
        greedy.append(logits.argmax(dim=-1) == wanted)
        if with_entropy:
            everything = logits.log_softmax(dim=-1)
            logprobs.append(everything.gather(1, wanted[:, None])[:, 0])
            entropies.append(-(everything.exp() * everything).sum(dim=-1))
        else:  # without a second tensor as large as the logits
            own = logits.gather(1, wanted[:, None])[:, 0]
            logprobs.append(own - logits.logsumexp(dim=-1))
    return TargetScores(
        logprobs=torch.cat(logprobs),
        greedy=torch.cat(greedy),
        entropies=torch.cat(entropies) if with_entropy else None,
    )
