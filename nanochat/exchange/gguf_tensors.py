"""The tensors of a classic model by their names in a GGUF file of an Apertus model, and back."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor

from nanochat.exchange.stock_classes import cropped, swap_halves
from nanochat.gpt import rms_norm
from nanochat.gpt_config import GPTConfig

# Matrices of a block, here and there.
BLOCK = {
    "attn.c_q": "attn_q",
    "attn.c_k": "attn_k",
    "attn.c_v": "attn_v",
    "attn.c_proj": "attn_output",
    "mlp.c_fc": "ffn_up",
    "mlp.c_proj": "ffn_down",
}
NORMS = {"attn_norm": "n_embd", "ffn_norm": "n_embd", "attn_q_norm": "head_dim"}
NORMS["attn_k_norm"] = "head_dim"


def to_gguf(config: GPTConfig, state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Our tensors by their names there; see stock_classes for what is done to them."""
    state = cropped(config, state)
    tensors = {
        "token_embd.weight": rms_norm(state["transformer.wte.weight"].float()),
        "output_norm.weight": torch.ones(config.n_embd),
        "output.weight": state["lm_head.weight"],
    }
    for layer in range(config.n_layer):
        for ours, theirs in BLOCK.items():
            weight = state[f"transformer.h.{layer}.{ours}.weight"]
            tensors[f"blk.{layer}.{theirs}.weight"] = _turned(config, ours, weight)
        for name, size in NORMS.items():
            tensors[f"blk.{layer}.{name}.weight"] = torch.ones(getattr(config, size))
    return tensors


def from_gguf(config: GPTConfig, tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Back again, except that the rows of the embedding stay normalised: what the file computes."""
    state = {
        "transformer.wte.weight": tensors["token_embd.weight"],
        "lm_head.weight": tensors["output.weight"],
    }
    for layer in range(config.n_layer):
        for ours, theirs in BLOCK.items():
            weight = tensors[f"blk.{layer}.{theirs}.weight"]
            state[f"transformer.h.{layer}.{ours}.weight"] = _turned(config, ours, weight)
    return state


def _turned(config: GPTConfig, name: str, weight: Tensor) -> Tensor:
    heads = {"attn.c_q": config.n_head, "attn.c_k": config.n_kv_head}
    return swap_halves(weight, heads[name]) if name in heads else weight
