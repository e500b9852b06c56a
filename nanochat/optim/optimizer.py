"""One optimizer object over mixed groups: AdamW for tables and scalars, Muon for the matrices of the blocks."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from nanochat.optim.adamw import adamw_update
from nanochat.optim.groups import Group
from nanochat.optim.muon import muon_update


class Optimizer:
    """Holds the state of every group. Learning rates are the group's times the schedule's multiplier of the step."""

    def __init__(self, groups: list[Group]) -> None:
        self.groups = groups
        self.n_updates = 0
        self.state: dict[str, list[dict[str, Tensor]]] = {
            group.name: [{} for _ in range(1 if group.kind == "muon" else len(group.parameters))] for group in groups
        }

    @torch.no_grad()
    def step(self, lr_multiplier: float, momentum: float, weight_decay_multiplier: float = 1.0) -> None:
        """Update every parameter from its `.grad`."""
        self.n_updates += 1
        for group in self.groups:
            lr = group.lr * lr_multiplier
            if group.kind == "muon":
                decay = group.weight_decay * weight_decay_multiplier
                self._muon(group, lr, momentum, decay)
                continue
            for parameter, state in zip(group.parameters, self.state[group.name], strict=True):
                assert parameter.grad is not None, f"no gradient reached a parameter of group {group.name}"
                arguments = (self.n_updates, lr, group.betas, group.eps, group.weight_decay)
                adamw_update(parameter, parameter.grad, state, *arguments)

    def _muon(self, group: Group, lr: float, momentum: float, weight_decay: float) -> None:
        stacked = torch.stack(list(group.parameters))
        grads = torch.stack([parameter.grad for parameter in group.parameters])  # type: ignore[misc]
        muon_update(stacked, grads, self.state[group.name][0], lr, momentum, weight_decay, group.muon)
        for parameter, updated in zip(group.parameters, stacked, strict=True):
            parameter.copy_(updated)

    def zero_grad(self) -> None:
        for group in self.groups:
            for parameter in group.parameters:
                parameter.grad = None

    def state_dict(self) -> dict[str, Any]:
        return {"n_updates": self.n_updates, "state": self.state}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Raises ValueError when the saved groups are not this model's."""
        if set(state["state"]) != set(self.state):
            missing, extra = set(self.state) - set(state["state"]), set(state["state"]) - set(self.state)
            raise ValueError(
                f"optimizer state does not fit the model: missing groups {missing}, unknown groups {extra}"
            )
        self.n_updates, self.state = state["n_updates"], state["state"]
