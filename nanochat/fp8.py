"""Matrix products of the blocks in fp8, on chips that have the units (Ada, Hopper and newer).

Each operand is scaled by its own largest value, one scale a tensor, found anew at every product
(arXiv 2209.05433): activations and weights in E4M3 (to 448), gradients, which need the range, in
E5M2 (to 57,344). Weights stay fp32. Without gradients (evaluation, sampling) and for shapes the
units do not take, products run in the compute type.

Shape legend: N tokens, I inputs, O outputs.
"""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from nanochat.gpt import GPT, Linear

LARGEST = {torch.float8_e4m3fn: 448.0, torch.float8_e5m2: 57344.0}
MULTIPLE = 16  # of every side of a product, asked by the units


def quantize(x: Tensor, dtype: torch.dtype) -> tuple[Tensor, Tensor]:
    """x -> (x / scale in fp8, scale as an fp32 scalar), scale so that the largest value just
    fits."""
    scale = x.abs().amax().float().clamp_min(1e-12) / LARGEST[dtype]
    return (x.float() / scale).clamp(-LARGEST[dtype], LARGEST[dtype]).to(dtype).contiguous(), scale


def product(
    a: Tensor, a_scale: Tensor, b: Tensor, b_scale: Tensor, dtype: torch.dtype, fast: bool
) -> Tensor:
    """fp8 a (m, k) times b.t() for fp8 b (n, k), both contiguous -> (m, n) in `dtype`. `fast`: sums
    in fewer bits.
    """
    return torch._scaled_mm(
        a, b.t(), scale_a=a_scale, scale_b=b_scale, out_dtype=dtype, use_fast_accum=fast
    )


class _Float8Product(torch.autograd.Function):
    """x (N, I), weight (O, I) -> (N, O); the three products of a linear layer in fp8."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor) -> Tensor:
        x8, x_scale = quantize(x, torch.float8_e4m3fn)
        weight8, weight_scale = quantize(weight, torch.float8_e4m3fn)
        ctx.save_for_backward(
            x8, x_scale, weight8, weight_scale
        )  # half the memory of the compute type
        ctx.dtypes = x.dtype, weight.dtype
        return product(x8, x_scale, weight8, weight_scale, x.dtype, fast=True)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, Tensor]:
        x8, x_scale, weight8, weight_scale = ctx.saved_tensors
        dtype, weight_dtype = ctx.dtypes
        grad8, grad_scale = quantize(grads[0], torch.float8_e5m2)
        grad_x = product(
            grad8, grad_scale, weight8.t().contiguous(), weight_scale, dtype, fast=False
        )
        # Rows of both factors run over tokens here, so both are laid out anew.
        grad_w = product(
            grad8.t().contiguous(), grad_scale, x8.t().contiguous(), x_scale, dtype, fast=False
        )
        return grad_x, grad_w.to(weight_dtype)


class Float8Linear(Linear):
    """A `Linear` whose training products run in fp8; same weight, same name in the state dict."""

    def forward(self, x: Tensor) -> Tensor:
        n_tokens = x.numel() // x.size(-1)
        if not torch.is_grad_enabled() or n_tokens % MULTIPLE:
            return F.linear(x, self.weight.to(x.dtype))
        y = _Float8Product.apply(x.reshape(n_tokens, x.size(-1)), self.weight)
        return y.view(*x.shape[:-1], self.out_features)


def check_fp8(device: torch.device) -> None:
    """Raise ValueError where the device multiplies no fp8 matrices."""
    if device.type != "cuda":
        raise ValueError(
            f"--fp8: not available on {device.type}; needs an H100 or another GPU with fp8, "
            "leave it out here"
        )
    if torch.cuda.get_device_capability(device) < (8, 9):
        name = torch.cuda.get_device_name(device)
        raise ValueError(
            f"--fp8: not available on this {name}; needs an H100 or another GPU with fp8, leave "
            "it out here"
        )


def use_fp8(model: GPT) -> int:
    """Switch the matrices of the blocks that the units can take to fp8 products; returns how
    many."""
    switched = 0
    for block in model.blocks:
        for part in (block.attn, block.mlp):
            for name, linear in list(part.named_children()):
                if not isinstance(linear, Linear) or name == "ve_gate":
                    continue
                if linear.in_features % MULTIPLE or linear.out_features % MULTIPLE:
                    continue
                fast = Float8Linear.__new__(Float8Linear)
                # The same parameter object: optimizer groups stay true.
                fast.__dict__ = linear.__dict__
                setattr(part, name, fast)
                switched += 1
    return switched
