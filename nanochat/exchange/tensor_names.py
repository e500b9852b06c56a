"""Names of tensors, here and in Hugging Face's NanoChat classes."""

from __future__ import annotations

import re
from collections.abc import Mapping

from torch import Tensor

# (here, there); {} is the number of a layer.
RENAMES = (
    ("transformer.wte.weight", "model.embed_tokens.weight"),
    ("transformer.h.{}.attn.c_q.weight", "model.layers.{}.self_attn.q_proj.weight"),
    ("transformer.h.{}.attn.c_k.weight", "model.layers.{}.self_attn.k_proj.weight"),
    ("transformer.h.{}.attn.c_v.weight", "model.layers.{}.self_attn.v_proj.weight"),
    ("transformer.h.{}.attn.c_proj.weight", "model.layers.{}.self_attn.o_proj.weight"),
    ("transformer.h.{}.attn.ve_gate.weight", "model.layers.{}.self_attn.ve_gate.weight"),
    ("transformer.h.{}.mlp.c_fc.weight", "model.layers.{}.mlp.fc1.weight"),
    ("transformer.h.{}.mlp.c_proj.weight", "model.layers.{}.mlp.fc2.weight"),
    ("lm_head.weight", "lm_head.weight"),
    ("value_embeds.{}.weight", "model.value_embeds.{}.weight"),
    ("resid_lambdas", "model.resid_lambdas"),
    ("x0_lambdas", "model.x0_lambdas"),
    ("smear_gate.weight", "model.smear_gate.weight"),
    ("smear_lambda", "model.smear_lambda"),
    ("backout_lambda", "model.backout_lambda"),
)


def to_hf(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The same tensors by the names of transformers' NanoChat classes."""
    return _renamed(state, dict(RENAMES))


def from_hf(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The same tensors by our names. ValueError naming those that no variant has."""
    return _renamed(state, {there: here for here, there in RENAMES})


def _renamed(state: Mapping[str, Tensor], table: Mapping[str, str]) -> dict[str, Tensor]:
    renamed, unknown = {}, []
    for name, tensor in state.items():
        number = re.search(r"\.(\d+)\.", name)
        general = re.sub(r"\.\d+\.", ".{}.", name, count=1)
        if general in table:
            renamed[table[general].format(number[1] if number else "")] = tensor
        else:
            unknown.append(name)
    if unknown:
        more = f" and {len(unknown) - 3} more" if len(unknown) > 3 else ""
        raise ValueError(f"tensors that no variant has: {', '.join(unknown[:3])}{more}")
    return renamed
