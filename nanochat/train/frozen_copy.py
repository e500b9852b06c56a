"""Copies of a model that are not trained: the starting model of reinforcement learning, and copies
in the compute type, which decode faster.
"""

from __future__ import annotations

import torch

from nanochat.gpt import GPT, model_without_storage


def in_precision(model: GPT, dtype: torch.dtype) -> GPT:
    """A frozen copy of `model` with its weights in `dtype`. Collective where the model is in pieces
    over the ranks.
    """
    copy = model_without_storage(model.config)
    state = {}
    with torch.no_grad():
        for name, tensor in model.state_dict().items():
            whole = tensor.full_tensor() if hasattr(tensor, "full_tensor") else tensor
            state[name] = whole.detach().to(dtype, copy=True)
    copy.load_state_dict(state, assign=True)
    copy.compute_dtype = model.compute_dtype
    return copy.requires_grad_(False).eval()


@torch.no_grad()
def follow(copy: GPT, model: GPT) -> None:
    """Bring the weights of a copy up to date."""
    for own, now in zip(copy.parameters(), model.parameters(), strict=True):
        own.copy_(now)
