"""A folder that Hugging Face transformers, vLLM and whatever reads their layout can load."""

from __future__ import annotations

import json
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

import torch
from torch import Tensor

import nanochat.exchange
from nanochat.exchange.hf_tokenizer import tokenizer_files
from nanochat.exchange.optional_module import needed
from nanochat.exchange.stock_classes import cropped, extras, refuse_extras, to_apertus
from nanochat.exchange.stored_model import StoredModel
from nanochat.exchange.tensor_names import to_hf
from nanochat.gpt_config import GPTConfig
from nanochat.runtime.files import atomic_write
from nanochat.tokenizer import Tokenizer
from nanochat.tokenizer.special_tokens import ASSISTANT_END, BOS

StoredType = Literal["keep", "float32", "bfloat16"]
NORM_EPS = torch.finfo(torch.float32).eps
SHARD_BYTES = 5 * 10**9
REMOTE_FILE = "modeling_nanochat_modern.py"


def write_hf(
    model: StoredModel,
    folder: Path,
    *,
    stock: bool = False,
    dtype: StoredType = "keep",
    shard_bytes: int = SHARD_BYTES,
) -> None:
    """Write weights, config, tokenizer, chat template and generation config into `folder`.

    `stock`: as an Apertus model. ValueError for a model that the asked class cannot hold.
    """
    if stock:
        fix = "leave --stock out: the export then brings a class of its own"
        refuse_extras(model.config, "--stock", fix)
        tensors = to_apertus(model.config, model.state)
    elif extras(model.config):
        tensors = to_hf(model.state)
    else:
        tensors = to_hf(cropped(model.config, model.state))
    if dtype != "keep":
        tensors = {name: tensor.to(getattr(torch, dtype)) for name, tensor in tensors.items()}
    folder.mkdir(parents=True, exist_ok=True)
    save_safetensors(tensors, folder, shard_bytes)
    config = class_config(model.config, stock)
    config |= {"dtype": _widest(tensors), **_ids(model.tokenizer), "use_cache": True}
    config["nanochat_checkpoint"] = model.name  # what it was made from
    _write_json(folder / "config.json", config)
    _write_json(folder / "generation_config.json", generation_config(model.tokenizer))
    for name, text in tokenizer_files(model.tokenizer, model.config.sequence_len).items():
        atomic_write(folder / name, text)
    if config["model_type"] == "nanochat_modern":
        (package,) = nanochat.exchange.__path__
        shutil.copyfile(Path(package) / "remote_code" / REMOTE_FILE, folder / REMOTE_FILE)


def save_safetensors(tensors: Mapping[str, Tensor], folder: Path, shard_bytes: int) -> None:
    """One file, or several with an index where they would be larger than `shard_bytes`."""
    hub = needed("huggingface_hub")
    needed("safetensors")
    apart = {name: tensor.contiguous() for name, tensor in tensors.items()}
    hub.save_torch_state_dict(apart, folder, max_shard_size=shard_bytes)


def class_config(config: GPTConfig, stock: bool = False) -> dict[str, Any]:
    """`config.json` without the ids of the tokenizer."""
    common: dict[str, Any] = {
        "vocab_size": config.vocab_size,
        "hidden_size": config.n_embd,
        "intermediate_size": 4 * config.n_embd,
        "num_hidden_layers": config.n_layer,
        "num_attention_heads": config.n_head,
        "num_key_value_heads": config.n_kv_head,
        "max_position_embeddings": config.sequence_len,
        "final_logit_softcapping": config.logit_softcap,
        "tie_word_embeddings": False,
    }
    if extras(config):
        return {**common, **_modern(config)}
    rope = {"rope_type": "default", "rope_theta": config.rope_base}
    common |= {"rms_norm_eps": NORM_EPS, "rope_parameters": rope, "attention_bias": False}
    if stock:
        return {
            **common,
            "architectures": ["ApertusForCausalLM"],
            "model_type": "apertus",
            "hidden_act": "xielu",
            "mlp_bias": False,
            "post_norm": False,
            "qk_norm": True,
        }
    return {
        **common,
        "architectures": ["NanoChatForCausalLM"],
        "model_type": "nanochat",
        "hidden_act": "relu2",
        "rope_bf16": config.rope_bf16,  # read by `nanochat pull` alone
    }


def _modern(config: GPTConfig) -> dict[str, Any]:
    layers = range(config.n_layer)
    windows = [config.window(layer) for layer in layers]
    module = REMOTE_FILE.removesuffix(".py")
    return {
        "architectures": ["NanoChatModernForCausalLM"],
        "model_type": "nanochat_modern",
        "auto_map": {
            "AutoConfig": f"{module}.NanoChatModernConfig",
            "AutoModel": f"{module}.NanoChatModernModel",
            "AutoModelForCausalLM": f"{module}.NanoChatModernForCausalLM",
        },
        "padded_vocab_size": config.padded_vocab_size,
        "layer_types": ["full_attention" if w < 0 else "sliding_attention" for w in windows],
        # the token itself counts there
        "sliding_window": None if max(windows) < 0 else max(windows) + 1,
        "value_embedding_layers": [n for n in layers if config.has_value_embedding(n)],
        "value_gate_channels": config.value_gate_channels,
        "value_gate_scale": config.value_gate_scale,
        "residual_mixing": config.residual_mixing,
        "smear": config.smear,
        "backout": config.backout,
        "qk_scale": config.qk_scale,
        "rope_theta": config.rope_base,
        "rope_bf16": config.rope_bf16,
    }


def generation_config(tokenizer: Tokenizer) -> dict[str, Any]:
    """An answer ends with <|assistant_end|>, or where the next document would begin."""
    ids = _ids(tokenizer)
    ends = [ids["eos_token_id"], ids["bos_token_id"]]
    return {**ids, "eos_token_id": ends, "do_sample": True, "temperature": 0.8, "top_k": 50}


def _ids(tokenizer: Tokenizer) -> dict[str, int]:
    bos = tokenizer.encode_special(BOS)
    end = tokenizer.encode_special(ASSISTANT_END)
    return {"bos_token_id": bos, "eos_token_id": end, "pad_token_id": bos}


def _widest(tensors: Mapping[str, Tensor]) -> str:
    """The type that holds all of them: what a program that casts them to one type should take."""
    widest = max((tensor.dtype for tensor in tensors.values()), key=lambda dtype: dtype.itemsize)
    return str(widest).removeprefix("torch.")


def _write_json(path: Path, content: Mapping[str, Any]) -> None:
    atomic_write(path, json.dumps(content, indent=1) + "\n")
