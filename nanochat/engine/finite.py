"""Logits that are no numbers: what a damaged or diverged model computes. They are never drawn from
nor scored.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from torch import Tensor


class NonFiniteLogits(ValueError):
    """The model's weights are of no use."""

    def __init__(self, checkpoint: str = "") -> None:
        begin = f"{checkpoint}: " if checkpoint else ""
        super().__init__(
            f"{begin}the model computes logits that are not finite (NaN or infinite): its weights "
            "are damaged or its training diverged; use an earlier checkpoint"
        )


def check_finite(values: Tensor) -> None:
    """Raise NonFiniteLogits unless all values are numbers. The highest logit of each row will do: a
    NaN anywhere makes it NaN.
    """
    if not bool(values.isfinite().all()):
        raise NonFiniteLogits


@contextmanager
def checkpoint_named(checkpoint: str) -> Iterator[None]:
    """Within the block NonFiniteLogits say which checkpoint they come from, which an engine does
    not know.
    """
    try:
        yield
    except NonFiniteLogits:
        raise NonFiniteLogits(checkpoint) from None
