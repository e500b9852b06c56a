"""One optimizer object over mixed groups: AdamW for tables and scalars, Muon for the matrices of
the blocks.

On several ranks each owns a part of every stack and table (shard.py; fsdp_shard.py where the model
itself is sharded): reduce-scatter, update, all-gather. A step is `grads = reduce_gradients()`,
then whatever looks at or scales them (`grad_norm`, clipping), then `step`.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from nanochat.optim.adamw import adamw_update
from nanochat.optim.fsdp_shard import FSDPStackShard, FSDPTableShard, is_fsdp
from nanochat.optim.gradient_overlap import GradientOverlap
from nanochat.optim.groups import Group
from nanochat.optim.muon import muon_update
from nanochat.optim.shard import Shard, StackShard, TableShard
from nanochat.runtime.world import World

# Matrices updated at once: Muon's temporaries are several times the stack it works on (d20 on a 24
# GB card).
MUON_ELEMENTS = 2**26


def shards_of(group: Group, world: World) -> list[Shard]:
    """One stack of all matrices of a Muon group, or each table of the others by itself."""
    fsdp = is_fsdp(group.parameters[0])
    if group.kind == "muon":
        return [(FSDPStackShard if fsdp else StackShard)(group.parameters, world)]
    table = FSDPTableShard if fsdp else TableShard
    return [table([parameter], world) for parameter in group.parameters]


class Optimizer:
    """Holds the state of every group. Learning rates are the group's times the schedule's
    multiplier of the step.
    """

    def __init__(self, groups: list[Group], world: World) -> None:
        self.groups = groups
        self.world = world
        self.n_updates = 0
        self.shards = {group.name: shards_of(group, world) for group in groups}
        tables = [*self.shards.get("head", []), *reversed(self.shards.get("value_embeds", []))]
        self.overlap = GradientOverlap(
            [shard for shard in tables if type(shard) is TableShard and not shard.replicated]
        )

    @property
    def state(self) -> dict[str, list[dict[str, Tensor]]]:
        """This rank's own states, by group."""
        return {name: [shard.state for shard in shards] for name, shards in self.shards.items()}

    def rates(self, lr_multiplier: float) -> dict[str, float]:
        """Learning rate of each kind of parameter, all matrices as one."""
        return {
            "matrices" if group.kind == "muon" else group.name: group.lr * lr_multiplier
            for group in self.groups
        }

    @torch.no_grad()
    def reduce_gradients(self) -> list[Tensor]:
        """Sum the parameters' gradients over ranks, take them away from the parameters and return
        this rank's parts.

        Collective; all transfers are in flight together, those of `overlap` since the backward
        pass. The tensors returned are those that `step` will use, so scaling them in place scales
        the update.
        """
        shards = self._all_shards()
        self.overlap.finish()
        for shard in shards:
            if shard not in self.overlap.shards:
                shard.reduce()
        self._sum_replicated(
            [shard.grad for shard in shards if shard.replicated and shard.grad is not None]
        )
        for shard in shards:
            shard.finish_reduce()
        return [shard.grad for shard in shards]  # type: ignore[misc]

    def _sum_replicated(self, grads: list[Tensor]) -> None:
        """The small tensors that every rank holds whole travel as one."""
        if self.world.world_size == 1 or not grads:
            return
        flat = self.world.all_reduce_sum(torch.cat([grad.reshape(-1) for grad in grads]))
        for grad, summed in zip(grads, flat.split([grad.numel() for grad in grads]), strict=True):
            grad.copy_(summed.view_as(grad))

    def grad_norm(self) -> float:
        """L2 norm of the reduced gradient over all parameters, the same number on every rank.
        Collective.
        """
        if self.world.world_size == 1:
            grads = [shard.grad for shard in self._all_shards() if shard.grad is not None]
            return float(torch.nn.utils.get_total_norm(grads))
        square = torch.zeros((), dtype=torch.float64, device=self.world.device)
        for shard in self._all_shards():
            if not shard.replicated or self.world.is_main:  # what all ranks hold counts once
                square += torch.linalg.vector_norm(shard.grad).double().square()  # type: ignore[arg-type]
        return float(self.world.all_reduce_sum(square).sqrt())

    @torch.no_grad()
    def step(
        self, lr_multiplier: float, momentum: float, weight_decay_multiplier: float = 1.0
    ) -> None:
        """Update every parameter from the gradients that `reduce_gradients` left (called here if it
        was not).
        """
        if any(shard.grad is None for shard in self._all_shards()):
            self.reduce_gradients()
        self.n_updates += 1
        for group in self.groups:
            lr = group.lr * lr_multiplier
            for shard in self.shards[group.name]:
                assert shard.grad is not None
                own = shard.own_parameters()
                if group.kind == "muon":
                    decay = group.weight_decay * weight_decay_multiplier
                    self._muon(group, shard, own, lr, momentum, decay)
                else:
                    adamw_update(
                        own,
                        shard.grad,
                        shard.state,
                        step=self.n_updates,
                        lr=lr,
                        betas=group.betas,
                        eps=group.eps,
                        weight_decay=group.weight_decay,
                    )
                shard.grad = None
                shard.publish(own)  # travels while the next part is being updated
        for shard in self._all_shards():
            shard.finish_publish()

    def _muon(
        self, group: Group, shard: Shard, own: Tensor, lr: float, momentum: float, decay: float
    ) -> None:
        assert shard.grad is not None
        size = max(1, MUON_ELEMENTS // own[0].numel())
        states = []
        for start in range(0, own.size(0), size):
            rows = slice(start, start + size)
            # Views: updated in place.
            states.append({name: tensor[rows] for name, tensor in shard.state.items()})
            muon_update(
                own[rows],
                shard.grad[rows],
                states[-1],
                lr=lr,
                momentum=momentum,
                weight_decay=decay,
                options=group.muon,
                dtype=group.dtype,
            )
        if not shard.state:  # the first step made them
            shard.state = {name: torch.cat([state[name] for state in states]) for name in states[0]}

    def zero_grad(self) -> None:
        """Forget the gradients, the parameters' and the reduced ones."""
        for shard in self._all_shards():
            shard.grad = None
            for parameter in shard.parameters:
                parameter.grad = None

    def _all_shards(self) -> list[Shard]:
        return [shard for shards in self.shards.values() for shard in shards]

    def state_dict(self) -> dict[str, Any]:
        """All states, in a form that does not depend on the number of ranks. Collective: call it on
        every rank.

        On one process these are the live tensors; on several rank 0 gets copies in main memory, the
        others empty ones.
        """
        state = {
            name: [shard.full_state() for shard in shards] for name, shards in self.shards.items()
        }
        return {"n_updates": self.n_updates, "state": state}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Take this rank's part of states saved on any number of ranks; every rank is given the
        full ones.

        Raises ValueError when the saved groups are not this model's.
        """
        if set(state["state"]) != set(self.shards):
            missing, extra = (
                set(self.shards) - set(state["state"]),
                set(state["state"]) - set(self.shards),
            )
            raise ValueError(
                f"optimizer state does not fit the model: missing groups {missing}, unknown "
                f"groups {extra}"
            )
        for name, shards in self.shards.items():
            if len(shards) != len(state["state"][name]):
                raise ValueError(
                    f"optimizer state of {name} is of {len(state['state'][name])} tensors where "
                    "this model has "
                    f"{len(shards)}; resume with the settings of the run that saved it"
                )
            for shard, full in zip(shards, state["state"][name], strict=True):
                shard.load_full_state(full)
        self.n_updates = state["n_updates"]
