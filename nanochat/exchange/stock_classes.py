"""Classic models as a class that other programs have: Apertus (arXiv 2509.14233).

Exact up to the softcap of the logits, which those programs leave out: it changes no greedy answer,
and what is sampled a little.
- the rotation has the other sign there: the halves of each head's rows of c_q and c_k change places
- the embedding is not normalised there: its rows are stored normalised
- norms have weights there: ones
- xIELU with alpha_p = 1 (stored as ln(e - 1)), alpha_n = 0 (-200) and beta = 0 is ReLU squared
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping

import torch
from torch import Tensor

from nanochat.gpt import rms_norm
from nanochat.gpt_config import GPTConfig

ALPHA_P = math.log(math.e - 1)
ALPHA_N = -200.0


def extras(config: GPTConfig) -> list[str]:
    """What a model has beyond the classic generation, in words."""
    windows = any(config.window(layer) >= 0 for layer in range(config.n_layer))
    found = {
        "attention windows": windows,
        "value embeddings": config.value_embeddings,
        "residual mixing": config.residual_mixing,
        "smear": config.smear,
        "backout": config.backout,
        "scaled queries and keys": config.qk_scale != 1,
    }
    return [name for name, there in found.items() if there]


def refuse_extras(config: GPTConfig, target: str, fix: str) -> None:
    """ValueError for a model that a class for classic models cannot hold."""
    if found := extras(config):
        raise ValueError(
            f"{target} holds classic models only, this one has {', '.join(found)}; {fix}"
        )


def to_apertus(config: GPTConfig, state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Our tensors (name -> tensor) as those of transformers' ApertusForCausalLM."""
    renamed: dict[str, Tensor] = {}
    for name, tensor in cropped(config, state).items():
        renamed.update(_apertus_tensor(config, name, tensor))
    width, head = torch.ones(config.n_embd), torch.ones(config.head_dim)
    renamed["model.norm.weight"] = width
    for layer in range(config.n_layer):
        at = f"model.layers.{layer}"
        renamed[f"{at}.attention_layernorm.weight"] = width.clone()
        renamed[f"{at}.feedforward_layernorm.weight"] = width.clone()
        renamed[f"{at}.self_attn.q_norm.weight"] = head.clone()
        renamed[f"{at}.self_attn.k_norm.weight"] = head.clone()
        renamed[f"{at}.mlp.act_fn.alpha_p"] = torch.tensor([ALPHA_P])
        renamed[f"{at}.mlp.act_fn.alpha_n"] = torch.tensor([ALPHA_N])
        renamed[f"{at}.mlp.act_fn.beta"] = torch.tensor(0.0)
        renamed[f"{at}.mlp.act_fn.eps"] = torch.tensor(-1e-6)
    return renamed


def _apertus_tensor(config: GPTConfig, name: str, tensor: Tensor) -> Iterator[tuple[str, Tensor]]:
    if name == "transformer.wte.weight":
        yield "model.embed_tokens.weight", rms_norm(tensor.float())
        return
    if name == "lm_head.weight":
        yield name, tensor
        return
    _, _, layer, part, matrix, _ = name.split(".")
    if matrix == "c_q":
        tensor = swap_halves(tensor, config.n_head)
    if matrix == "c_k":
        tensor = swap_halves(tensor, config.n_kv_head)
    attention = {"c_q": "q_proj", "c_k": "k_proj", "c_v": "v_proj", "c_proj": "o_proj"}
    mlp = {"c_fc": "up_proj", "c_proj": "down_proj"}
    place = f"self_attn.{attention[matrix]}" if part == "attn" else f"mlp.{mlp[matrix]}"
    yield f"model.layers.{layer}.{place}.weight", tensor


def swap_halves(weight: Tensor, n_heads: int) -> Tensor:
    """Rows (heads * D, in) with the two halves of each head exchanged."""
    rows, width = weight.shape
    halves = weight.view(n_heads, 2, rows // n_heads // 2, width)
    return halves.flip(1).reshape(rows, width).contiguous()


def cropped(config: GPTConfig, state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Without the rows that pad the vocabulary, which no token reaches."""
    tables = ("transformer.wte.weight", "lm_head.weight")
    return {
        name: tensor[: config.vocab_size].clone() if name in tables else tensor
        for name, tensor in state.items()
    }
