"""`nanochat export mlx MODEL OUT`: a classic checkpoint for mlx-lm, on Apple's chips."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import torch

from nanochat.exchange.export_hf import ExportConfig
from nanochat.exchange.fresh_place import fresh_place
from nanochat.exchange.hf_folder import (
    SHARD_BYTES,
    StoredType,
    generation_config,
    save_safetensors,
)
from nanochat.exchange.hf_tokenizer import tokenizer_files
from nanochat.exchange.mlx_runtime import MLXRuntime
from nanochat.exchange.model_card import model_card
from nanochat.exchange.native_runtime import NativeRuntime
from nanochat.exchange.optional_module import NotInstalled
from nanochat.exchange.probes import PROMPTS
from nanochat.exchange.self_check import Check, compare, refuse_failed, rotary_note
from nanochat.exchange.stock_classes import cropped, refuse_extras
from nanochat.exchange.stored_model import StoredModel, native_model, open_stored
from nanochat.model_spec import parse_spec
from nanochat.runtime.base_dir import expanded
from nanochat.runtime.files import atomic_write

SOFTCAP = 15.0  # written into mlx-lm's class
LOGIT_LIMITS = {"float32": 5e-3, "bfloat16": 0.2}  # its norms add 1e-5, ours 1.2e-7


@dataclass
class MLXExportConfig(ExportConfig):
    """Write a classic checkpoint as a folder for mlx-lm, and check it there."""

    dtype: StoredType = "bfloat16"
    """Type of the weights; keep: as they are in the checkpoint."""


def export_mlx(cfg: MLXExportConfig) -> list[Check]:
    """Write the folder; prints and returns what checking it found. Raises ValueError when the
    check fails, and leaves no folder then.
    """
    model = open_stored(parse_spec(cfg.model))
    out = expanded(cfg.out)
    with fresh_place(out, cfg.replace) as folder:
        write_mlx(model, folder, cfg.dtype)
        checks, told = check_mlx(model, folder, cfg.dtype) if cfg.check else ([], ["not checked"])
        notes = [line for check in checks for line in check.lines()] + told
        atomic_write(folder / "README.md", model_card(model, "mlx", notes))
        print("\n".join(notes))
        refuse_failed(checks, out)
    print(f"{model.name} -> {out}")
    return checks


def write_mlx(model: StoredModel, folder: Path, dtype: StoredType) -> None:
    """Write our tensors by their own names, with the config that mlx-lm's class reads."""
    config = model.config
    refuse_extras(config, "mlx-lm's nanochat", "export it with `nanochat export hf`")
    if config.logit_softcap != SOFTCAP:
        raise ValueError(
            f"{model.name}: its softcap is {config.logit_softcap:g}, mlx-lm has {SOFTCAP:g} in its "
            "code; export it with `nanochat export hf`"
        )
    tensors = cropped(config, model.state)
    if dtype != "keep":
        tensors = {name: tensor.to(getattr(torch, dtype)) for name, tensor in tensors.items()}
    folder.mkdir(parents=True, exist_ok=True)
    save_safetensors(tensors, folder, SHARD_BYTES)
    generation = generation_config(model.tokenizer)
    shape = {
        "model_type": "nanochat",
        "hidden_size": config.n_embd,
        "intermediate_size": 4 * config.n_embd,
        "num_hidden_layers": config.n_layer,
        "num_attention_heads": config.n_head,
        "num_key_value_heads": config.n_kv_head,
        "vocab_size": config.vocab_size,
        "max_position_embeddings": config.sequence_len,
        "rope_theta": config.rope_base,
        "eos_token_id": generation["eos_token_id"],
        "bos_token_id": generation["bos_token_id"],
    }
    atomic_write(folder / "config.json", json.dumps(shape, indent=1) + "\n")
    atomic_write(folder / "generation_config.json", json.dumps(generation, indent=1) + "\n")
    for name, text in tokenizer_files(model.tokenizer, config.sequence_len).items():
        atomic_write(folder / name, text)


def check_mlx(
    model: StoredModel, folder: Path, dtype: StoredType, texts: Sequence[str] = PROMPTS
) -> tuple[list[Check], list[str]]:
    """What mlx-lm makes of the folder, and what is to be said besides."""
    stored = model.state
    if dtype != "keep":
        stored = {name: tensor.to(getattr(torch, dtype)) for name, tensor in stored.items()}
    exact = replace(model.config, rope_bf16=False)
    ours = NativeRuntime(native_model(exact, stored), model.tokenizer)
    try:
        other = MLXRuntime(folder)
    except NotInstalled as error:
        return [], [f"not checked: {error.args[0].split(';')[0]}"]
    narrow = any(tensor.dtype == torch.bfloat16 for tensor in stored.values())
    limit = LOGIT_LIMITS["bfloat16" if narrow else "float32"]
    check = compare(ours, other, logit_limit=limit, texts=texts)
    check.notes += rotary_note(model, ours, texts)
    return [check], []
