"""A training step without a GPU: shapes go through the real code on `meta` tensors and storages are
added up.

What differs between a CPU's and a GPU's dispatch is put in place of what `meta` would pick: the
fused norm, flash attention where it is causal, memory-efficient attention with a mask, and the
workspaces that these ask the allocator for inside of an operation, which no trace shows.

Shape legend: N tokens of a micro-batch, D model width, H heads, T positions.
"""

from __future__ import annotations

import weakref
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from types import SimpleNamespace
from typing import Any
from unittest.mock import patch

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from nanochat.dataloader.loader import Batch
from nanochat.gpt import GPT, GPTConfig
from nanochat.optim.groups import parameter_groups, published_settings
from nanochat.optim.optimizer import Optimizer
from nanochat.runtime.world import Pending, World
from nanochat.train.gradients import Gradients

aten = torch.ops.aten
ROUND_BYTES = 512  # of every block that the CUDA caching allocator hands out


def _attention_workspace(grad: Tensor, query: Tensor, *_: Any) -> int:
    """The gradient of the queries is added up in fp32, beside a sum for each query and head."""
    return 4 * query.numel() + 4 * query.numel() // query.size(-1)


def _embedding_workspace(grad: Tensor, indices: Tensor, *_: Any) -> int:
    """Sorted indices and, at most, one fp32 row for each of them."""
    return 4 * grad.numel() + 4 * 8 * indices.numel()


WORKSPACES: dict[Any, Callable[..., int]] = {
    aten._scaled_dot_product_flash_attention_backward.default: _attention_workspace,
    aten._scaled_dot_product_efficient_attention_backward.default: _attention_workspace,
    aten.embedding_dense_backward.default: _embedding_workspace,
}


class _FusedNorm(torch.autograd.Function):
    """What `F.rms_norm` is on a GPU: one kernel that keeps its input and 1 / RMS in fp32."""

    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        ctx.save_for_backward(x, x.new_empty(x.shape[:-1], dtype=torch.float32))
        return torch.empty_like(x, memory_format=torch.contiguous_format)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> Tensor:
        x, _ = ctx.saved_tensors
        return torch.empty_like(x, memory_format=torch.contiguous_format)


def _gpu_attention(q: Tensor, k: Tensor, v: Tensor, **how: Any) -> Tensor:
    """`F.scaled_dot_product_attention` of tensors (B, H, T, D) as a GPU with flash attention
    carries it out.
    """
    if how.get("enable_gqa"):
        k, v = (x.repeat_interleave(q.size(1) // x.size(1), dim=1) for x in (k, v))
    mask = how.get("attn_mask")
    if mask is None:
        return aten._scaled_dot_product_flash_attention(q, k, v, 0.0, how.get("is_causal", False))[
            0
        ]
    bias = torch.zeros_like(mask, dtype=q.dtype).masked_fill_(~mask, float("-inf"))
    bias = bias.expand(q.size(0), q.size(1), q.size(2), k.size(2))
    return aten._scaled_dot_product_efficient_attention(q, k, v, bias, True)[0]


@contextmanager
def gpu_kernels(norm: Callable[[Tensor], Tensor]) -> Iterator[None]:
    """Calls of fused operations go to the kernels that a GPU would run, also where the backward
    pass repeats them.
    """
    with (
        patch.object(F, "rms_norm", lambda x, shape: norm(x)),
        patch.object(F, "scaled_dot_product_attention", _gpu_attention),
    ):
        yield


@dataclass
class Tally:
    """Live bytes, and the most there were in each phase."""

    live: int = 0
    phase: str = "build"
    peaks: dict[str, int] = field(default_factory=dict)
    _seen: dict[int, Any] = field(default_factory=dict)
    _is_paused: bool = False

    @property
    def peak(self) -> int:
        return max(self.peaks.values())

    @contextmanager
    def paused(self) -> Iterator[None]:
        """What is made in here is not counted."""
        self._is_paused = True
        yield
        self._is_paused = False

    def add(self, tensor: Tensor) -> None:
        storage = tensor.untyped_storage()
        key = storage._cdata
        if key in self._seen or self._is_paused or tensor.device.type != "meta":
            return
        size = -(-storage.nbytes() // ROUND_BYTES) * ROUND_BYTES

        def gone(_: Any) -> None:
            del self._seen[key]
            self.live -= size

        self._seen[key] = weakref.ref(storage, gone)
        self.live += size
        self.note(0)

    def note(self, extra: int) -> None:
        self.peaks[self.phase] = max(self.peaks.get(self.phase, 0), self.live + extra)


class _Watch(TorchDispatchMode):
    def __init__(self, tally: Tally) -> None:
        super().__init__()
        self.tally = tally

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        made = func(*args, **(kwargs or {}))
        for tensor in tree_leaves(made):
            if isinstance(tensor, Tensor):
                self.tally.add(tensor)
        if func in WORKSPACES:
            self.tally.note(WORKSPACES[func](*args))
        return made


class _Alone(World):
    """One of several ranks whose peers are not there: collectives take the memory that they take,
    and send nothing.
    """

    def reduce_scatter_sum(self, tensor: Tensor) -> Pending:
        own = torch.empty_like(tensor[: len(tensor) // self.world_size])
        return Pending(own, SimpleNamespace(wait=lambda: None), tensor)

    def all_gather(self, own: Tensor, into: Tensor | None = None) -> Pending:
        into = own.new_empty(self.world_size * len(own), *own.shape[1:]) if into is None else into
        return Pending(into, SimpleNamespace(wait=lambda: None), own)

    def all_reduce_sum(self, tensor: Tensor) -> Tensor:
        return tensor


def simulate(
    config: GPTConfig,
    rows: int,
    seq_len: int,
    *,
    checkpointing: bool = False,
    micro_batches: int = 2,
    world_size: int = 1,
    dtype: torch.dtype = torch.bfloat16,
    norm: Callable[[Tensor], Tensor] = _FusedNorm.apply,
    hidden_fn: Callable[[GPT, Tally], Callable[[Tensor], Tensor]] = lambda model, tally: (
        model.hidden
    ),
) -> Tally:
    """Two optimizer steps -> the most bytes that were allocated in each part of them.

    `norm` takes the place of the RMS norm; `hidden_fn` makes of the model what is called for its
    activations.
    """
    meta = torch.device("meta")
    tally, world = Tally(), (_Alone if world_size > 1 else World)(0, 0, world_size, meta)
    with gpu_kernels(norm), _Watch(tally), meta:
        model = GPT(config)
        model.compute_dtype, model.activation_checkpointing = dtype, checkpointing
        for parameter in model.parameters():
            tally.add(parameter)
        optimizer = Optimizer(parameter_groups(model, published_settings(config.generation)), world)
        gradients = Gradients(model, hidden_fn(model, tally), None, optimizer.overlap)
        ids = torch.zeros(rows, seq_len, dtype=torch.long)
        batches = [Batch(ids, ids, torch.ones(rows, seq_len)) for _ in range(micro_batches)]
        for step in (1, 2):  # the first has no states yet
            tally.phase = f"passes {step}"
            gradients.accumulate(batches, micro_batches * rows * seq_len)
            tally.phase = f"update {step}"
            optimizer.reduce_gradients()
            optimizer.step(1.0, 0.9)
            optimizer.zero_grad()
    return tally
