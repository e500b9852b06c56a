"""Sending the gradients of big tables while the backward pass still goes on.

In the last micro-batch of a step a table's gradient is complete long before the pass ends: the
head's comes first, then those of the value embeddings, last layer first. The sum over ranks starts
as soon as it is there. Stacks of matrices span all layers, so their last gradient comes at the very
end: for them there is nothing to gain.
"""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor

from nanochat.optim.shard import TableShard


class GradientOverlap:
    """Starts the reductions of `shards` in that order, in which their gradients come.

    The order is what all ranks must agree on, also one that had nothing to pass backwards: it
    starts all of them in `finish`. `armed`: whether the pass under way is the step's last.
    """

    def __init__(self, shards: Sequence[TableShard]) -> None:
        self.shards = list(shards)
        self.armed = False
        self._there: set[int] = set()
        self._n_started = 0
        for number, shard in enumerate(self.shards):
            shard.table.register_post_accumulate_grad_hook(self._hook(number))

    def _hook(self, number: int):  # type: ignore[no-untyped-def]
        def on_gradient(parameter: Tensor) -> None:
            if self.armed:
                self._there.add(number)
                while self._n_started in self._there:
                    self._start()

        return on_gradient

    def _start(self) -> None:
        self.shards[self._n_started].reduce()
        self._n_started += 1

    def finish(self) -> None:
        """Start what is not started yet; the next step begins anew."""
        for shard in self.shards[: self._n_started]:
            # Made again by a step that ran out of memory: what was sent is the whole.
            shard.table.grad = None
        while self._n_started < len(self.shards):
            self._start()
        self.armed = False
        self._n_started = 0
        self._there.clear()
