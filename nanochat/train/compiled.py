"""Compiling the forward pass where it pays, and running uncompiled where it does not."""

from __future__ import annotations

import functools
import os
import shutil
import sys
from collections.abc import Callable
from typing import Any, cast

import torch
from torch import Tensor

from nanochat.gpt import GPT, TransformerBlock
from nanochat.runtime.base_dir import base_dir
from nanochat.runtime.errors import reason
from nanochat.train.shard_model import is_sharded

# Compiling takes about 20 s on two cores and saves a third of the step: below this it does not pay.
WORTHWHILE_TOKENS = {"cpu": 1_000_000, "cuda": 0}


def wants_compiling(
    device_type: str, wanted: bool | None, sharded: bool, planned_tokens: int
) -> bool:
    """Whether a run compiles its model, given that there is a compiler. `wanted` None: decided by
    the device and the length of the run.
    """
    if sharded:  # gathers weights between the blocks, outside of what a compiler can see
        return False
    if wanted is None:
        return device_type in WORTHWHILE_TOKENS and planned_tokens >= WORTHWHILE_TOKENS[device_type]
    return wanted


def forward_pass(model: GPT, wanted: bool | None, planned_tokens: int) -> ForwardPass:
    """`model.hidden`, compiled when `wanted`; None: decided by the device, its compiler and the
    length of the run.
    """
    device = model.get_device().type
    has_compiler = device == "cuda" or any(shutil.which(name) for name in ("g++", "clang++", "c++"))
    if wanted is None and not has_compiler:
        wanted = False
    return ForwardPass(model, wants_compiling(device, wanted, is_sharded(model), planned_tokens))


def call_block(block: TransformerBlock, *arguments: Any) -> Tensor:
    """What is compiled on a CPU. The block is an argument and its weights are inputs, so that equal
    blocks share the compiled code.
    """
    return cast(Tensor, block(*arguments))


class ForwardPass:
    """Token ids (B, T) -> activations before the head (B, T, D): `model.hidden`, compiled or as it
    is.

    Compiled for the first shape it is given; others (odd last micro-batches) run uncompiled. On a
    GPU the whole forward pass is compiled, so that operations are fused across blocks. On a CPU one
    block is, for all that are equal: steps are as fast, and d4 compiles in 20 s instead of 57 (two
    cores).
    """

    def __init__(self, model: GPT, compile: bool = False) -> None:
        self.model = model
        self.shape: torch.Size | None = None
        self.compiled: Callable[[Tensor], Tensor] | None = None
        if compile:
            model.make_rotary()
            os.environ.setdefault("TORCHINDUCTOR_CACHE_DIR", str(base_dir() / "compile_cache"))
            self.compiled = self._compile()

    def _compile(self) -> Callable[[Tensor], Tensor]:
        if self.model.get_device().type == "cuda":
            return torch.compile(self.model.hidden, dynamic=False)
        return functools.partial(self.model.hidden, run=torch.compile(call_block, dynamic=False))

    def __call__(self, input_ids: Tensor) -> Tensor:
        if self.compiled is None or (self.shape is not None and input_ids.shape != self.shape):
            return self.model.hidden(input_ids)
        if self.shape is not None:
            return self.compiled(input_ids)
        try:
            hidden = self.compiled(input_ids)
        except torch.OutOfMemoryError:
            raise
        except Exception as error:  # a broken compiler on the user's machine must not cost the run
            why = reason(error)
            print(
                f"warning: compiling failed ({why}); training goes on uncompiled",
                file=sys.stderr,
            )
            self.compiled = None
            return self.model.hidden(input_ids)
        self.shape = input_ids.shape
        return hidden

    def forget_shape(self) -> None:
        """Micro-batches have another size from now on: compile for the next one met."""
        self.shape = None
