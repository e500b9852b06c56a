"""The forward pass of each public variant, written plainly: loops and full matrices, fp32.

It shares no code with the model that it checks.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor


@dataclass(frozen=True, kw_only=True)
class Variant:
    """What the published table says of one variant. `gate_channels` 0: no value embeddings."""

    vocab_multiple: int = 64
    mixing: bool = False
    short_window: Callable[[int], int] = lambda context: context // 2
    gate_channels: int = 0
    gate_scale: float = 0.0
    qk_scale: float = 1.0
    rope_base: float = 10_000.0
    rope_bf16: bool = True
    softcap: float = 15.0
    smear: bool = False  # and backout
    extra_meta: dict[str, Any] = field(default_factory=dict)


def up_to_128(tokens: float) -> int:
    return int(-(-tokens // 128)) * 128


SSSL = {"window_pattern": "SSSL"}
MARCH = {"mixing": True, "gate_channels": 12, "gate_scale": 3.0, "rope_base": 1e5}
VARIANTS = {
    "classic": Variant(vocab_multiple=1),
    "9 December 2025": Variant(),
    "11 January 2026": Variant(mixing=True, extra_meta=SSSL),
    "16 January 2026": Variant(mixing=True, gate_channels=32, gate_scale=2.0, extra_meta=SSSL),
    "3 March 2026": Variant(
        mixing=True,
        gate_channels=32,
        gate_scale=2.0,
        softcap=20.0,
        extra_meta={**SSSL, "logit_softcap": 20},  # no tensor tells it: the file must
    ),
    "9 March 2026": Variant(
        **MARCH,
        rope_bf16=False,
        qk_scale=1.15,
        short_window=lambda context: up_to_128(context / 3),
        extra_meta=SSSL,
    ),
    "14 March 2026": Variant(
        **MARCH,
        rope_bf16=False,
        qk_scale=1.2,
        smear=True,
        short_window=lambda context: up_to_128(context / 4),
        extra_meta=SSSL,
    ),
}


def norm(x: Tensor) -> Tensor:
    return x / (x.square().mean(dim=-1, keepdim=True) + torch.finfo(torch.float32).eps).sqrt()


def rotated(x: Tensor, variant: Variant) -> Tensor:
    """x (H, T, D), each pair of channels (i, i + D/2) turned by position * base^(-2i/D)."""
    half = x.size(-1) // 2
    frequency = variant.rope_base ** (-torch.arange(half) / half)
    angle = torch.arange(x.size(1))[:, None] * frequency
    cos, sin = angle.cos(), angle.sin()
    if variant.rope_bf16:
        cos, sin = cos.bfloat16().float(), sin.bfloat16().float()
    a, b = x[..., :half], x[..., half:]
    return torch.cat((a * cos + b * sin, b * cos - a * sin), dim=-1)


def attention(
    state: dict[str, Tensor], layer: int, x: Tensor, ids: Tensor, variant: Variant, n_head: int
) -> tuple[Tensor, Tensor, Tensor]:
    """Queries, keys and values (H, T, D) of normalised x (T, C), keys and values repeated."""
    weight = {n: state[f"transformer.h.{layer}.attn.c_{n}.weight"] for n in "qkv"}
    head_dim = x.size(1) // n_head
    q, k, v = ((x @ weight[n].T).view(len(x), -1, head_dim).transpose(0, 1) for n in "qkv")
    table = state.get(f"value_embeds.{layer}.weight")
    if table is not None:
        channels = x[:, : variant.gate_channels]
        gate = channels @ state[f"transformer.h.{layer}.attn.ve_gate.weight"].T
        values = table[ids].view(len(x), -1, head_dim).transpose(0, 1)
        v = v + variant.gate_scale * gate.sigmoid().T[..., None] * values
    q, k = (variant.qk_scale * norm(rotated(part, variant)) for part in (q, k))
    share = n_head // k.size(0)
    return q, k.repeat_interleave(share, 0), v.repeat_interleave(share, 0)


def attended(q: Tensor, k: Tensor, v: Tensor, window: int) -> Tensor:
    position = torch.arange(q.size(1))
    distance = position[:, None] - position
    scores = (q @ k.mT) / q.size(-1) ** 0.5
    hidden = (distance < 0) | (distance > window)
    return scores.masked_fill(hidden, float("-inf")).softmax(-1) @ v


@torch.no_grad()
def plain_logits(
    state: dict[str, Tensor], ids: Tensor, variant: Variant, n_head: int, context: int
) -> Tensor:
    """Token ids (T) -> softcapped logits (T, V)."""
    n_layer = 1 + max(int(name.split(".")[2]) for name in state if ".h." in name)
    pattern = variant.extra_meta.get("window_pattern", "L")
    x = norm(state["transformer.wte.weight"][ids])
    if variant.smear:
        gate = (x[:, :24] @ state["smear_gate.weight"].T).sigmoid() * state["smear_lambda"]
        x = torch.cat((x[:1], x[1:] + gate[1:] * x[:-1]))
    x0, middle = x, x
    for layer in range(n_layer):
        if variant.mixing:
            x = state["resid_lambdas"][layer] * x + state["x0_lambdas"][layer] * x0
        short = pattern[layer % len(pattern)] == "S" and layer < n_layer - 1
        window = variant.short_window(context) if short else len(ids)
        q, k, v = attention(state, layer, norm(x), ids, variant, n_head)
        y = attended(q, k, v, window).transpose(0, 1).reshape(x.shape)
        x = x + y @ state[f"transformer.h.{layer}.attn.c_proj.weight"].T
        hidden = (norm(x) @ state[f"transformer.h.{layer}.mlp.c_fc.weight"].T).relu().square()
        x = x + hidden @ state[f"transformer.h.{layer}.mlp.c_proj.weight"].T
        if layer == n_layer // 2:
            middle = x
    if variant.smear:
        x = x - state["backout_lambda"] * middle
    logits = norm(x) @ state["lm_head.weight"].T
    return variant.softcap * (logits / variant.softcap).tanh()
