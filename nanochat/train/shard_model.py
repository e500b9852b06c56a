"""`--shard-model`: weights and gradients in pieces over the ranks (PyTorch FSDP2), for models that
do not fit whole.

Each block is gathered in the compute type just before it is used and let go of after; its gradient
is summed over ranks and cut at once. The ends (embedding, head, scalars) are one group that is
whole from the forward to the end of the backward pass: the chunked objective reads the head outside
of the model's forward. Every forward and backward pass is then work of all ranks together, so all
take the same number of micro-batches (`evened`), and evaluation and sampling, where ranks do
different things, use a whole copy in the compute type (`whole_model`).
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from nanochat.dataloader.loader import Batch
from nanochat.gpt import GPT
from nanochat.runtime.world import World
from nanochat.train.frozen_copy import in_precision


def shard_model(model: GPT, world: World) -> None:
    """Cut `model` into pieces over the ranks of `world`, in place. Every rank must hold the same
    weights.
    """
    from torch.distributed.device_mesh import init_device_mesh
    from torch.distributed.fsdp import (
        FSDPModule,
        MixedPrecisionPolicy,
        fully_shard,
        register_fsdp_forward_method,
    )

    mesh = init_device_mesh(world.device.type, (world.world_size,))
    # Sums stay fp32, and tables and scalars too: a table's gradient adds up many small terms.
    policy = MixedPrecisionPolicy(
        param_dtype=model.compute_dtype, reduce_dtype=torch.float32, cast_forward_inputs=False
    )
    for block in model.blocks:
        fully_shard(block, mesh=mesh, mp_policy=policy)
    for table in model.value_tables():
        # A lookup's gradient does not need the table.
        fully_shard(table, mesh=mesh).set_unshard_in_backward(False)
        _mark(table)
    fully_shard(model, mesh=mesh)
    register_fsdp_forward_method(model, "hidden")
    for module in model.modules():
        if isinstance(module, FSDPModule):  # the loop divides by the global count of targets itself
            module.set_gradient_divide_factor(1.0)
            module.set_force_sum_reduction_for_comms(True)  # gloo has no other


def _mark(table: nn.Module) -> None:
    """Let FSDP see when a table's gradient is there: it waits for the gradient of the inputs, and
    token ids have none.

    Without it all tables' gradients would stay whole until the end of the backward pass.
    """
    lookup = table.forward

    def add_mark(module: nn.Module, arguments: tuple[Any, ...]) -> tuple[Any, ...]:
        return *arguments, torch.zeros(
            (), requires_grad=torch.is_grad_enabled(), device=arguments[0].device
        )

    table.register_forward_pre_hook(add_mark, prepend=True)
    table.forward = lambda ids, mark: lookup(ids) + mark  # type: ignore[method-assign]


def is_sharded(model: nn.Module) -> bool:
    return hasattr(model, "set_requires_gradient_sync")  # what fully_shard makes of a module


def local_part(tensor: Tensor) -> Tensor:
    """This rank's piece of a tensor in pieces, else the tensor."""
    part: Tensor = tensor.to_local() if hasattr(tensor, "to_local") else tensor
    return part


def evened(batches: list[Batch], n: int, device: torch.device) -> list[Batch]:
    """`n` micro-batches: the given ones, then as many as are missing, with weight 0 everywhere."""
    ids = torch.zeros(1, 1, dtype=torch.int64, device=device)
    return batches + [Batch(ids, ids, torch.zeros(1, 1, device=device))] * (n - len(batches))


def whole_model(model: GPT) -> GPT:
    """The model itself; of a model in pieces, a frozen whole copy in the compute type, which is a
    collective.
    """
    return in_precision(model, model.compute_dtype or torch.float32) if is_sharded(model) else model


@torch.no_grad()
def full_state(model: GPT, world: World) -> dict[str, Any]:
    """The model's state dict: the live tensors; of a model in pieces, whole tensors in rank 0's
    main memory. Collective.
    """
    state: dict[str, Any] = model.state_dict()
    if not is_sharded(model):
        return state
    full = {}
    for name, piece in state.items():
        whole: Tensor = piece.full_tensor()
        if world.is_main:
            full[name] = whole.to("cpu", copy=True)
    return full


@torch.no_grad()
def load_full_state(model: GPT, state: dict[str, Any]) -> None:
    """Load whole tensors into `model`; each rank takes its pieces. RuntimeError as from
    `load_state_dict`.
    """
    if not is_sharded(model):
        model.load_state_dict(state)
        return
    own: dict[str, Any] = model.state_dict()
    wrong = [name for name in own.keys() | state.keys() if name not in own or name not in state]
    wrong = wrong or [name for name in own if own[name].shape != state[name].shape]
    if wrong:
        raise RuntimeError(f"names or shapes differ: {', '.join(sorted(wrong)[:5])}")
    for name, piece in own.items():
        mesh, rows = piece.device_mesh, piece.to_local()
        start = -(-piece.size(0) // mesh.size()) * mesh.get_local_rank()
        rows.copy_(state[name][start : start + len(rows)])
