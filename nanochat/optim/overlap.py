"""Sending the gradients of big tables while the backward pass still goes on.

In the last micro-batch of a step a table's gradient is complete long before the pass ends: the
head's comes first, then those of the value embeddings, last layer first. The sum over ranks starts
as soon as it is there. Stacks of matrices span all layers, so their last gradient comes at the very
end: for them there is nothing to gain.
"""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor

from nanochat.optim.ownership import Shard


class Overlap:
    """Starts the reductions of `shards` (one table each, in the order in which gradients come) in
    that order.

    The order is what all ranks must agree on, also one that had nothing to pass backwards: it
    starts all of them in `finish`. `armed`: whether the pass under way is the step's last.
    """

    def __init__(self, shards: Sequence[Shard]) -> None:
        self.shards = list(shards)
        self.armed = False
        self._there: set[int] = set()
        self._n_started = 0
        for number, shard in enumerate(self.shards):
            shard.parameters[0].register_post_accumulate_grad_hook(self._hook(number))

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
            shard.parameters[
                0
            ].grad = None  # made again by a step that ran out of memory: what was sent is the whole
        while self._n_started < len(self.shards):
            self._start()
        self.armed, self._n_started = False, 0
        self._there.clear()
