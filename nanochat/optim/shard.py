"""What one rank owns of the optimizer's work: an equal part of each stack of matrices and of each
big table.

Gradients arrive by reduce-scatter, so every rank gets the sum for its own part alone; it keeps the
states of that part and hands its new parameters to the others by all-gather. With one process a
part is the whole and nothing is sent.

Shape legend: N rows of a table or matrices of a stack, W ranks, n = ceil(N / W) of them owned by a
rank. Rows beyond N are padding of zeros, which every update rule leaves at zero, so any number of
ranks fits any model.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence

import torch
from torch import Tensor

from nanochat.runtime.world import Pending, World

REPLICATED_ELEMENTS = 2**14  # smaller tensors cost less to update everywhere than to send around


class Shard(ABC):
    """`parameters` that are updated as one tensor (N, ...), and this rank's part of it."""

    replicated_below = REPLICATED_ELEMENTS

    def __init__(self, parameters: Sequence[Tensor], count: int, world: World) -> None:
        self.parameters = parameters
        self.world = world
        self.count = count
        n_elements = sum(parameter.numel() for parameter in parameters)
        self.replicated = world.world_size == 1 or n_elements < self.replicated_below
        self.n_own = count if self.replicated else -(-count // world.world_size)
        self.start = 0 if self.replicated else self.n_own * world.rank
        self.n_padded = self.n_own * (1 if self.replicated else world.world_size)
        self.state: dict[str, Tensor] = {}  # of the own part
        self.grad: Tensor | None = None  # of the own part, once reduced
        self._pending: Pending | None = None

    @abstractmethod
    def own_parameters(self) -> Tensor:
        """(n, ...): the part to update."""

    @abstractmethod
    def publish(self, updated: Tensor) -> None:
        """Start sending the updated part to all ranks; `finish_publish` puts every part into the
        parameters.
        """

    @abstractmethod
    def _put(self, whole: Tensor) -> None:
        """Make (N, ...) the parameters."""

    @abstractmethod
    def _joined(self, grads: list[Tensor]) -> Tensor:
        """The gradients of all parameters as one tensor, padded to W * n rows."""

    def reduce(self) -> None:
        """Take the gradients from the parameters and start summing them over ranks; `finish_reduce`
        waits.
        """
        whole = self._joined([_gradient(parameter) for parameter in self.parameters])
        for parameter in self.parameters:
            parameter.grad = None
        if self.replicated:
            self.grad = whole
        else:
            self._pending = self.world.reduce_scatter_sum(whole)

    def finish_reduce(self) -> None:
        if self._pending is not None:
            self.grad, self._pending = self._pending.wait(), None

    def finish_publish(self) -> None:
        if self._pending is not None:
            whole, self._pending = self._pending.wait(), None
            self._put(whole[: self.count])

    def full_state(self) -> dict[str, Tensor]:
        """The states of all ranks' parts, (N, ...) each: the same whatever the number of ranks.
        Collective.

        On several ranks rank 0 gets them, one by one, in its main memory; the others get nothing.
        """
        if self.world.world_size == 1:
            return self.state
        full = {}
        for name in sorted(self.state):
            whole = self.state[name]
            if not self.replicated:
                whole = self.world.all_gather(whole).wait()[: self.count]
            if self.world.is_main:
                full[name] = whole.to("cpu", copy=True)
        return full

    def load_full_state(self, full: dict[str, Tensor]) -> None:
        """Cut this rank's part out of states saved on any number of ranks. Raises ValueError where
        they do not fit.
        """
        state = {}
        for name, whole in full.items():
            if whole.size(0) != self.count:
                raise ValueError(
                    f"optimizer state {name} has {whole.size(0)} rows where this model has "
                    f"{self.count}; resume with the settings of the run that saved it"
                )
            own = whole[self.start : self.start + self.n_own]
            state[name] = with_rows(own.to(self.parameters[0].device, copy=True), self.n_own)
        self.state = state


class TableShard(Shard):
    """One table or vector (N, ...)."""

    def __init__(self, parameters: Sequence[Tensor], world: World) -> None:
        (self.table,) = parameters
        super().__init__(parameters, self.table.size(0), world)

    def own_parameters(self) -> Tensor:
        """A view of the table where the part is all of it, else perhaps a copy."""
        own = self.table.data[self.start : self.start + self.n_own]
        return own if self.replicated else with_rows(own, self.n_own)

    def publish(self, updated: Tensor) -> None:
        if not self.replicated:
            direct = self.table.data if self.n_padded == self.count else None
            self._pending = self.world.all_gather(updated, direct)

    def _put(self, whole: Tensor) -> None:
        if whole.data_ptr() != self.table.data_ptr():
            self.table.data.copy_(whole)

    def _joined(self, grads: list[Tensor]) -> Tensor:
        return with_rows(grads[0], self.n_padded)


class StackShard(Shard):
    """A stack (N, R, C) of equally shaped matrices, each a parameter."""

    def __init__(self, parameters: Sequence[Tensor], world: World) -> None:
        super().__init__(parameters, len(parameters), world)

    def own_parameters(self) -> Tensor:
        own = [p.data for p in self.parameters[self.start : self.start + self.n_own]]
        if not own:
            return self.parameters[0].new_zeros(self.n_own, *self.parameters[0].shape)
        return with_rows(torch.stack(own), self.n_own)

    def publish(self, updated: Tensor) -> None:
        if self.replicated:
            self._put(updated)
        else:
            self._pending = self.world.all_gather(updated, None)

    def _put(self, whole: Tensor) -> None:
        for parameter, matrix in zip(self.parameters, whole, strict=True):
            parameter.data.copy_(matrix)

    def _joined(self, grads: list[Tensor]) -> Tensor:
        missing = self.n_padded - self.count
        return torch.stack(grads + [torch.zeros_like(grads[0])] * missing)


def _gradient(parameter: Tensor) -> Tensor:
    """Its gradient; zeros where none reached it, so that all ranks send the same."""
    return torch.zeros_like(parameter) if parameter.grad is None else parameter.grad


def with_rows(tensor: Tensor, n_rows: int) -> Tensor:
    """(m, ...) -> (n_rows, ...), zeros below; contiguous, the tensor itself where it already
    fits."""
    if tensor.size(0) == n_rows:
        return tensor.contiguous()
    padded = tensor.new_zeros(n_rows, *tensor.shape[1:])
    padded[: tensor.size(0)] = tensor
    return padded
