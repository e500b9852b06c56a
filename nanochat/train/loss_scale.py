"""Dynamic loss scaling: keeps float16 gradients inside the range that float16 has (arXiv
1710.03740).
"""

from __future__ import annotations

from typing import Any

LARGEST = 2.0**24
SMALLEST = 1.0


class LossScale:
    """The factor on the loss. Halved when gradients overflow, doubled after `patience` steps in
    which none did.

    Powers of two only: scaling and unscaling then change no bit of a gradient that is in range.
    """

    def __init__(self, scale: float = 2.0**16, patience: int = 1000) -> None:
        self.scale = scale
        self.patience = patience
        self.good_steps = 0

    def update(self, overflow: bool) -> None:
        """After a step; `overflow` must be the same on every rank."""
        if overflow:
            self.scale, self.good_steps = max(self.scale / 2, SMALLEST), 0
            return
        self.good_steps += 1
        if self.good_steps >= self.patience:
            self.scale, self.good_steps = min(self.scale * 2, LARGEST), 0

    @property
    def exhausted(self) -> bool:
        """Nothing left to halve: an overflow now is a true one."""
        return self.scale <= SMALLEST

    def state_dict(self) -> dict[str, Any]:
        return {"scale": self.scale, "good_steps": self.good_steps}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.scale, self.good_steps = float(state["scale"]), int(state["good_steps"])
