"""A Hugging Face folder read back: weights, config and tokenizer of this project's exports and of
public classic models.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from torch import Tensor

from nanochat.exchange.hf_tokenizer import from_fast_tokenizer
from nanochat.exchange.optional_module import needed
from nanochat.exchange.tensor_names import from_hf
from nanochat.gpt_config import GPTConfig
from nanochat.runtime.errors import reason
from nanochat.tokenizer import Tokenizer
from nanochat.tokenizer.bpe import FORMAT


def read_safetensors(paths: Sequence[Path]) -> dict[str, Tensor]:
    """The tensors of all files by our names. ValueError naming the file that is damaged."""
    library = needed("safetensors.torch")
    tensors: dict[str, Tensor] = {}
    for path in paths:
        try:
            more = library.load_file(path)
        except Exception as error:  # the library's own kind, and those of torch
            raise ValueError(
                f"{path.name}: not a readable safetensors file ({reason(error)})"
            ) from None
        if twice := tensors.keys() & more.keys():
            raise ValueError(f"{path.name}: holds {min(twice)}, which another file holds too")
        tensors.update(more)
    return from_hf(tensors)


def read_json(path: Path) -> Any:
    """ValueError naming the file when it is no JSON object."""
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        raise ValueError(f"{path.name}: not readable ({reason(error)})") from None
    if not isinstance(content, dict):
        raise ValueError(f"{path.name}: holds no JSON object")
    return content


def config_from_hf(content: Mapping[str, Any]) -> GPTConfig:
    """Our config of a `config.json`. ValueError for a model of another kind, by its name."""
    kind = content.get("model_type")
    if kind not in ("nanochat", "nanochat_modern"):
        raise ValueError(
            f"model_type {kind!r} is not read: only nanochat and nanochat_modern are; a stock "
            "export cannot be taken back, pull the checkpoint it was made from"
        )
    try:
        rope = content.get("rope_parameters") or {}
        shape: dict[str, Any] = {
            "sequence_len": content["max_position_embeddings"],
            "vocab_size": content["vocab_size"],
            "n_layer": content["num_hidden_layers"],
            "n_head": content["num_attention_heads"],
            "n_kv_head": content.get("num_key_value_heads") or content["num_attention_heads"],
            "n_embd": content["hidden_size"],
            "rope_base": float(rope.get("rope_theta", content.get("rope_theta", 10_000.0))),
            "rope_bf16": content.get("rope_bf16", True),
            "logit_softcap": content.get("final_logit_softcapping", 15.0),
        }
        if kind == "nanochat_modern":
            shape |= _extras(content)
        return GPTConfig(**shape)
    except (KeyError, TypeError) as error:
        raise ValueError(f"config.json: a field is missing or of another kind: {error}") from None


def _extras(content: Mapping[str, Any]) -> dict[str, Any]:
    rows, vocab_size = content["padded_vocab_size"], content["vocab_size"]
    letters = {"full_attention": "L", "sliding_attention": "S"}
    window = content["sliding_window"]
    same = ("value_gate_channels", "value_gate_scale", "residual_mixing", "smear", "backout")
    return {
        "window_pattern": "".join(letters[kind] for kind in content["layer_types"]),
        "window_tokens": None if window is None else window - 1,
        "value_embeddings": bool(content["value_embedding_layers"]),
        "qk_scale": content["qk_scale"],
        "vocab_multiple": 64 if rows != vocab_size else 1,
        **{name: content[name] for name in same},
    }


def read_tokenizer(path: Path) -> Tokenizer:
    """A `tokenizer.pkl` (never run), our `tokenizer.json`, or Hugging Face's."""
    if path.suffix == ".json":
        content = read_json(path)
        if content.get("format") != FORMAT:
            return from_fast_tokenizer(content)
    return Tokenizer.load(path)
