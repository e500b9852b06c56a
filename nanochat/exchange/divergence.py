"""What the missing softcap of some programs changes in what is sampled."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

import torch

from nanochat.gpt import GPT

TEMPERATURE = 0.8


@dataclass(frozen=True, kw_only=True)
class Divergence:
    """Of sampling at `temperature` without the softcap from sampling with it: the Kullback-Leibler
    divergence in nats per token, and the share of probability that moves (total variation).
    """

    temperature: float
    positions: int
    mean_nats: float
    largest_nats: float
    mean_moved: float

    def line(self) -> str:
        return (
            f"without the softcap, sampling at temperature {self.temperature} diverges by "
            f"{self.mean_nats:.2g} nats per token (largest {self.largest_nats:.2g}, "
            f"{self.mean_moved:.1%} of the probability moves, {self.positions} positions); greedy "
            "answers are the same"
        )

    def record(self) -> dict[str, Any]:
        return asdict(self)


@torch.no_grad()
def softcap_divergence(model: GPT, prompts: Sequence[list[int]]) -> Divergence:
    """Measured over every position of the prompts."""
    nats, moved = [], []
    cap = model.config.logit_softcap
    for ids in prompts:
        hidden = model.hidden(torch.tensor([ids]))[0]
        raw = model.lm_head(hidden)[:, : model.config.vocab_size].float()
        ours = (cap * torch.tanh(raw / cap) / TEMPERATURE).log_softmax(-1)
        theirs = (raw / TEMPERATURE).log_softmax(-1)
        nats.append((ours.exp() * (ours - theirs)).sum(-1))
        moved.append((ours.exp() - theirs.exp()).abs().sum(-1) / 2)
    every, share = torch.cat(nats), torch.cat(moved)
    return Divergence(
        temperature=TEMPERATURE,
        positions=len(every),
        mean_nats=float(every.mean()),
        largest_nats=float(every.max()),
        mean_moved=float(share.mean()),
    )
