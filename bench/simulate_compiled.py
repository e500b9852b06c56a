"""The compiled forward pass in the simulation: what the compiler would keep for the backward pass,
and hold meanwhile.

Dynamo traces `model.hidden`, the compiler's own min-cut partitioner decides what is saved and what
is computed again. Kernels are not made. Which values come to lie in memory follows a plain rule
instead: results of matrix products and other library calls, what these read, and what a graph
returns; everything between is fused into its readers.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, fx
from torch._dynamo.backends.common import aot_autograd
from torch._functorch.partitioners import min_cut_rematerialization_partition
from torch._inductor.decomposition import select_decomp_table
from torch.utils._python_dispatch import _disable_current_modes

from bench.simulate import ROUND_BYTES, WORKSPACES, Tally, simulate
from nanochat.gpt import GPT, GPTConfig

# A value made of more tensors than these is written, whoever reads it: the compiler's
# `realize_reads_threshold` (where it is read more than once) and `realize_acc_reads_threshold`.
REUSED_READS, MOST_READS = 4, 8
LIBRARY = ("mm", "bmm", "addmm", "baddbmm", "_scaled_dot_product", "embedding_dense_backward")


def _name(node: fx.Node) -> str:
    return str(getattr(getattr(node.target, "overloadpacket", node.target), "__name__", ""))


def _is_library(node: fx.Node) -> bool:
    """Also what a checkpointed block wraps, to have the same random state when it is computed
    again.
    """
    return node.op == "call_function" and _name(node).startswith((*LIBRARY, "run_"))


class _Shapes(fx.Interpreter):
    """Runs a graph on `meta`, where there is no random state to save."""

    def call_function(self, target: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        name = getattr(target, "__name__", "")
        if name == "run_and_save_rng_state":
            return torch.empty(16, dtype=torch.uint8, device="cpu"), args[0](*args[1:], **kwargs)
        if name == "run_with_rng_state":
            return args[1](*args[2:], **kwargs)
        return super().call_function(target, args, kwargs)


def _storage(node: fx.Node) -> int | None:
    value = node.meta.get("val")
    return value.untyped_storage()._cdata if isinstance(value, Tensor) else None


class Profile:
    """Bytes that a graph has in memory while it runs, from its order and from which values are
    written at all.
    """

    def __init__(self, graph: fx.Graph, owns_inputs: bool) -> None:
        self.nodes = list(graph.nodes)
        self.sizes: dict[int, int] = {}
        self.inputs: set[int] = set()
        self.owned: set[int] = (
            set()
        )  # of the inputs those that nobody else holds: parameters are not
        returned: set[int] = set()
        for node in self.nodes:
            storage = _storage(node)
            if node.op == "placeholder" and storage is not None:
                self.inputs.add(storage)
                self.owned |= (
                    {storage} if owns_inputs and not node.name.startswith("primals") else set()
                )
                self._written(node)
            elif node.op == "output":
                returned = {s for n in node.all_input_nodes if (s := _storage(n)) is not None}
                for source in node.all_input_nodes:
                    self._written(source)
            elif _is_library(node):
                for written in [
                    *node.all_input_nodes,
                    *([node] if storage is not None else node.users),
                ]:
                    self._written(written)
            elif _name(node) in (
                "sum",
                "mean",
            ):  # small, and made at once, so that what they read can go
                self._written(node)
        self.peak = self._walk(returned)

    def _written(self, node: fx.Node) -> None:
        storage = _storage(node)
        if storage is not None:
            size = node.meta["val"].untyped_storage().nbytes()
            if not isinstance(size, int):  # of a random state, in main memory
                return
            self.sizes[storage] = -(-size // ROUND_BYTES) * ROUND_BYTES

    def _reads(self, node: fx.Node, known: dict[fx.Node, set[int]]) -> set[int]:
        """Storages that computing `node` reads, through everything that is fused into it."""
        found: set[int] = set()
        for source in node.all_input_nodes:
            storage = _storage(source)
            found |= {storage} if storage in self.sizes else known.get(source, set())
        return found

    def _walk(self, returned: set[int]) -> int:
        """Most bytes above those of the start."""
        known: dict[fx.Node, set[int]] = {}
        first: dict[int, int] = {}
        last: dict[int, int] = {}
        extra: dict[int, int] = {}
        for step, node in enumerate(self.nodes):
            known[node] = self._reads(node, known)
            if len(known[node]) > (REUSED_READS if len(node.users) > 1 else MOST_READS):
                self._written(node)
            storage = _storage(node)
            if node.op == "output" or _is_library(node) or storage in self.sizes:
                last.update(dict.fromkeys(known[node], step))
            if storage in self.sizes and storage not in self.inputs:
                first.setdefault(storage, step)
                last[storage] = max(last.get(storage, step), step)
            if node.target in WORKSPACES:
                extra[step] = WORKSPACES[node.target](
                    *(a.meta["val"] if isinstance(a, fx.Node) else a for a in node.args)
                )
        live = peak = 0
        for step in range(len(self.nodes)):
            live += sum(self.sizes[s] for s, at in first.items() if at == step)
            peak = max(peak, live + extra.get(step, 0))
            for storage, at in last.items():
                if (
                    at == step
                    and storage not in returned
                    and (storage not in self.inputs or storage in self.owned)
                ):
                    live -= self.sizes[storage]
        return peak


class _TracedNorm(torch.autograd.Function):
    """The fused norm as the compiler takes it apart; the formulas are those of its
    decompositions."""

    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        wide = x.float()
        scale = torch.rsqrt(wide.pow(2).mean(-1, keepdim=True) + 1e-7)
        ctx.save_for_backward(x, scale)
        return (wide * scale).to(x.dtype)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> Tensor:
        x, scale = ctx.saved_tensors
        grad, normal = grads[0].float(), x.float() * scale
        return ((grad - normal / x.size(-1) * (normal * grad).sum(-1, keepdim=True)) * scale).to(
            x.dtype
        )


def compiled_hidden(model: GPT, tally: Tally) -> Callable[[Tensor], Tensor]:
    """`model.hidden` compiled up to its kernels; the memory that these would have is told to
    `tally`.
    """

    def run_with(module: fx.GraphModule, owns_inputs: bool) -> Callable[[list[Any]], Any]:
        profile = Profile(module.graph, owns_inputs)

        def run(inputs: list[Any]) -> Any:
            tally.note(profile.peak)
            values = list(inputs)
            inputs.clear()  # what was saved is gone when the gradients are handed out
            with tally.paused():
                made = _Shapes(module).boxed_run(values)
            for tensor in made:
                if isinstance(tensor, Tensor):
                    tally.add(tensor)
            return made

        run._boxed_call = True  # type: ignore[attr-defined]
        return run

    backend = aot_autograd(
        fw_compiler=lambda module, _: run_with(module, owns_inputs=False),
        bw_compiler=lambda module, _: run_with(module, owns_inputs=True),
        partition_fn=min_cut_rematerialization_partition,
        decompositions=select_decomp_table(),
    )
    torch._dynamo.reset()
    compiled = torch.compile(model.hidden, backend=backend, dynamic=False)

    def hidden(input_ids: Tensor) -> Tensor:
        with _disable_current_modes():  # the compiler leaves calls under a foreign mode alone
            return compiled(input_ids)

    return hidden


def simulate_compiled(config: GPTConfig, rows: int, seq_len: int, **how: Any) -> Tally:
    """`bench.simulate.simulate` with the forward pass compiled as on a GPU."""
    return simulate(config, rows, seq_len, norm=_TracedNorm.apply, hidden_fn=compiled_hidden, **how)
