"""Weight-only int8: each row of a weight matrix as whole numbers from -127 to 127 and one scale
(LLM.int8(), arXiv 2208.07339, without its outlier split). Decoding reads every weight once a token,
so half the bytes is up to twice the speed. Activations, embeddings and gates keep their precision.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from nanochat.gpt import GPT, Linear

GATES = ("ve_gate", "smear_gate")  # small: nothing to gain


class Int8Linear(nn.Module):
    """x (..., K) -> (..., N) with the weight as int8 (N, K) and a scale (N) fp32 for each
    output."""

    weight_int8: Tensor
    scale: Tensor

    def __init__(self, weight: Tensor) -> None:
        super().__init__()
        rounded, scale = quantize_rows(weight.detach())
        self.register_buffer("weight_int8", rounded)
        self.register_buffer("scale", scale)

    @property
    def weight(self) -> Tensor:
        """The weight as it acts, fp32."""
        return self.weight_int8.float() * self.scale[:, None]

    def forward(self, x: Tensor) -> Tensor:
        return F.linear(x, self.weight_int8.to(x.dtype)) * self.scale.to(x.dtype)


def quantize_rows(weight: Tensor) -> tuple[Tensor, Tensor]:
    """Weight (N, K) -> int8 (N, K) and the scale of each row (N) fp32; a row of zeros gets scale
    1."""
    weight = weight.float()
    scale = weight.abs().amax(dim=1) / 127
    scale = torch.where(scale > 0, scale, torch.ones_like(scale))
    return (weight / scale[:, None]).round_().to(torch.int8), scale


@torch.no_grad()
def quantize_int8(model: GPT) -> GPT:
    """Replace the model's weight matrices, the head included, by int8 ones, in place; returns it.
    Frees one matrix before it makes the next, so the peak is little above the model's own size.
    """
    for module in list(model.modules()):
        for name, child in list(module.named_children()):
            if type(child) is Linear and name not in GATES:
                setattr(module, name, Int8Linear(child.weight))
    return model
