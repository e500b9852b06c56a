"""Rotary positions, and causal attention behind one function with a plain reference implementation
beside the fast one.

Shape legend: B batch, T query positions, S key positions, H query heads, G key/value heads (G
divides H), D head dim.
"""

from __future__ import annotations

import math
from typing import Literal, Protocol

import torch
import torch.nn.functional as F
from torch import Tensor

Backend = Literal["sdpa", "reference"]


class Cache(Protocol):
    """What the model asks of a key/value cache while it decodes (implemented by the engine)."""

    def positions(self, n_tokens: int) -> Tensor: ...
    def attend(self, layer: int, q: Tensor, k: Tensor, v: Tensor, window: int) -> Tensor: ...
    def previous(self, x: Tensor) -> Tensor: ...
    def advance(self, n_tokens: int) -> None: ...


def rotary_tables(
    base: float, head_dim: int, n_positions: int, device: torch.device, exact: bool
) -> tuple[Tensor, Tensor]:
    """cos and sin (n_positions, D/2), fp32; rounded to bf16 unless `exact`, as the classic
    generation was trained.
    """
    channel = torch.arange(0, head_dim, 2, dtype=torch.float32, device=device)
    position = torch.arange(n_positions, dtype=torch.float32, device=device)
    angles = torch.outer(position, base ** (-channel / head_dim))
    cos, sin = angles.cos(), angles.sin()
    return (cos, sin) if exact else (cos.bfloat16().float(), sin.bfloat16().float())


def rotate(x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    """Rotary embedding of x (B, T, H, D) with tables (B or 1, T, 1, D/2) in x's precision."""
    x1, x2 = x.chunk(2, dim=-1)
    return torch.cat((x1 * cos + x2 * sin, x2 * cos - x1 * sin), dim=-1)


def causal_mask(n_queries: int, n_keys: int, window: int, device: torch.device) -> Tensor:
    """(T, S) bool: may query t look at key s? The queries are the last T of S positions.

    `window` is the number of tokens to the left that stay visible besides the token itself;
    negative means all.
    """
    query = torch.arange(n_keys - n_queries, n_keys, device=device)[:, None]
    key = torch.arange(n_keys, device=device)[None, :]
    visible = key <= query
    if window >= 0:
        visible &= query - key <= window
    return visible


def attend(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    window: int = -1,
    mask: Tensor | None = None,
    backend: Backend = "sdpa",
) -> Tensor:
    """Attention of q (B, T, H, D) over k, v (B, S, G, D) -> (B, T, H, D), scaled by 1/sqrt(D).

    Without `mask` it is causal, the queries being the last T of the S positions, limited to
    `window` tokens to the left (negative: unlimited). `mask`, broadcastable to (B, 1, T, S), True
    where a key is visible, replaces both.
    """
    if backend == "reference":
        return _reference(q, k, v, window, mask)
    return _sdpa(q, k, v, window, mask)


def _reference(q: Tensor, k: Tensor, v: Tensor, window: int, mask: Tensor | None) -> Tensor:
    """The definition, in fp32 and without tricks: what every other path is tested against."""
    n_heads, n_groups = q.size(2), k.size(2)
    k = k.repeat_interleave(n_heads // n_groups, dim=2)
    v = v.repeat_interleave(n_heads // n_groups, dim=2)
    scores = torch.einsum("bthd,bshd->bhts", q.float(), k.float()) / math.sqrt(q.size(-1))
    if mask is None:
        mask = causal_mask(q.size(1), k.size(1), window, q.device)
    probabilities = scores.masked_fill(~mask, float("-inf")).softmax(dim=-1)
    return torch.einsum("bhts,bshd->bthd", probabilities, v.float()).to(q.dtype)


def _sdpa(q: Tensor, k: Tensor, v: Tensor, window: int, mask: Tensor | None) -> Tensor:
    n_queries, n_keys = q.size(1), k.size(1)
    gqa = q.size(2) != k.size(2)
    q, k, v = q.transpose(1, 2), k.transpose(1, 2), v.transpose(1, 2)
    covers_all = window < 0 or window >= n_keys - 1
    if mask is None and covers_all and n_queries == n_keys:
        y = F.scaled_dot_product_attention(q, k, v, is_causal=True, enable_gqa=gqa)
    elif mask is None and covers_all and n_queries == 1:
        y = F.scaled_dot_product_attention(q, k, v, enable_gqa=gqa)
    else:
        if mask is None:
            mask = causal_mask(n_queries, n_keys, window, q.device)
        y = F.scaled_dot_product_attention(q, k, v, attn_mask=mask, enable_gqa=gqa)
    return y.transpose(1, 2)
