"""Schedules as pure functions of the step: nothing here holds state."""

from __future__ import annotations

import math
from dataclasses import dataclass


@dataclass(frozen=True)
class Schedule:
    """Multipliers for a run of `n_steps`: linear warmup, flat, linear warmdown to `final_lr_frac`.

    Momentum climbs linearly from `momentum[0]` to `momentum[1]` over `momentum_warmup` steps and
    falls to `momentum[2]` during the warmdown. Weight decay falls along a cosine from 1 to 0, or
    stays 1.
    """

    n_steps: int
    warmup_steps: int = 0
    warmdown_steps: int = 0
    final_lr_frac: float = 0.0
    momentum: tuple[float, float, float] = (0.85, 0.95, 0.95)
    momentum_warmup: int = 300
    decay_weight_decay: bool = False

    def lr(self, step: int) -> float:
        if step < self.warmup_steps:
            return (step + 1) / self.warmup_steps
        left = self.n_steps - step
        if left >= self.warmdown_steps:
            return 1.0
        return self.final_lr_frac + (1 - self.final_lr_frac) * max(left, 0) / self.warmdown_steps

    def muon_momentum(self, step: int) -> float:
        start, plateau, end = self.momentum
        left = self.n_steps - step
        climbed = (
            start + (plateau - start) * min(step / self.momentum_warmup, 1.0)
            if self.momentum_warmup
            else plateau
        )
        if left >= self.warmdown_steps:
            return climbed
        return end + (climbed - end) * max(left, 0) / self.warmdown_steps

    def weight_decay(self, step: int) -> float:
        return (
            0.5 * (1 + math.cos(math.pi * min(step / self.n_steps, 1.0)))
            if self.decay_weight_decay
            else 1.0
        )
