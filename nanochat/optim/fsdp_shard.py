"""Shards of a model that is itself sharded (PyTorch FSDP2): of every parameter each rank holds some
rows.

FSDP has summed the gradients by then and cuts rows as `Shard` does, so a rank updates its rows of a
table where they lie. Muon needs whole matrices: a rank gathers those of a stack that it owns,
updates them and hands the rows back. States are those of any shard, so checkpoints do not tell
whether the model was sharded.

Shape legend: K matrices of a stack, R rows, C columns, W ranks, n = ceil(K / W) matrices owned by a
rank, r = ceil(R / W) rows held by a rank, zeros where there are fewer.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from nanochat.optim.shard import StackShard, TableShard, with_rows


def is_fsdp(parameter: Tensor) -> bool:
    """Whether FSDP has cut this parameter (it is a DTensor then)."""
    return hasattr(parameter, "to_local")


class FSDPTableShard(TableShard):
    """One table or vector (N, ...), of which this rank holds and updates rows."""

    replicated_below = 0

    def reduce(self) -> None:
        self.grad = with_rows(_gradient_rows(self.table), self.n_own)
        self.table.grad = None

    def own_parameters(self) -> Tensor:
        return with_rows(_rows(self.table), self.n_own)

    def publish(self, updated: Tensor) -> None:
        """Nobody else wants them: FSDP gathers what the next forward pass needs."""
        own = _rows(self.table)
        if own.data_ptr() != updated.data_ptr():
            own.copy_(updated[: len(own)])


class FSDPStackShard(StackShard):
    """A stack (K, R, C) of matrices, of each of which this rank holds rows. It updates n whole
    ones.
    """

    replicated_below = 0

    def reduce(self) -> None:
        grads = [_gradient_rows(parameter) for parameter in self.parameters]
        self._pending = self.world.all_to_all(self._packed(grads))
        for parameter in self.parameters:
            parameter.grad = None

    def finish_reduce(self) -> None:
        if self._pending is not None:
            self.grad, self._pending = self._matrices(self._pending.wait()), None

    def own_parameters(self) -> Tensor:
        rows = self._packed([_rows(parameter) for parameter in self.parameters])
        return self._matrices(self.world.all_to_all(rows).wait())

    def publish(self, updated: Tensor) -> None:
        rows = self._rows_each()
        padded = updated.new_zeros(self.n_own, self.world.world_size * rows, updated.size(2))
        padded[:, : updated.size(1)] = updated
        parts = padded.view(self.n_own, self.world.world_size, rows, -1).transpose(0, 1)
        self._pending = self.world.all_to_all(parts.reshape(self.n_padded, rows, -1))

    def finish_publish(self) -> None:
        if self._pending is None:
            return
        received, self._pending = self._pending.wait(), None
        # What follows the parameters' rows is padding.
        for parameter, rows in zip(self.parameters, received, strict=False):
            own = _rows(parameter)
            own.copy_(rows[: len(own)])

    def _rows_each(self) -> int:
        return -(-self.parameters[0].size(0) // self.world.world_size)

    def _packed(self, pieces: list[Tensor]) -> Tensor:
        """This rank's rows of every matrix -> (W * n, r, C), the matrices of each owner
        together."""
        packed = pieces[0].new_zeros(self.n_padded, self._rows_each(), pieces[0].size(1))
        for place, piece in zip(packed, pieces, strict=False):
            place[: len(piece)] = piece
        return packed

    def _matrices(self, received: Tensor) -> Tensor:
        """(W * n, r, C), every rank's rows of the owned matrices -> (n, R, C)."""
        parts = received.view(self.world.world_size, self.n_own, *received.shape[1:])
        whole = parts.transpose(0, 1).reshape(self.n_own, -1, received.size(2))
        return whole[:, : self.parameters[0].size(0)].contiguous()


def _rows(parameter: Any) -> Tensor:
    """What this rank holds, to be read and written."""
    with torch.no_grad():
        return parameter.to_local()


def _gradient_rows(parameter: Any) -> Tensor:
    return torch.zeros_like(_rows(parameter)) if parameter.grad is None else _rows(parameter.grad)
