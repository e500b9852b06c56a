"""Writing and reading GGUF files of classic models, which llama.cpp and Ollama run as Apertus."""

from __future__ import annotations

import ctypes
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor

from nanochat.exchange.byte_merges import merge_pairs, token_spellings
from nanochat.exchange.chat_template import chat_template
from nanochat.exchange.gguf_tensors import to_gguf
from nanochat.exchange.hf_folder import NORM_EPS
from nanochat.exchange.optional_module import needed
from nanochat.exchange.stock_classes import ALPHA_N, ALPHA_P, refuse_extras
from nanochat.exchange.stored_model import StoredModel
from nanochat.gpt_config import GPTConfig
from nanochat.tokenizer.bpe import SPLIT_DIGITS, SPLIT_PATTERN
from nanochat.tokenizer.special_tokens import ASSISTANT_END, BOS

FileType = Literal["f32", "bf16", "q8_0", "q6_k", "q5_k_m", "q4_k_m"]
# llama.cpp knows split patterns by name only. This one is ours, with digits one at a time.
SPLIT_NAMES = {SPLIT_PATTERN: "bailingmoe", SPLIT_DIGITS: "bailingmoe"}
BLOCK_COLUMNS = 32  # of a row that Q8_0 scales together
# What `gguf` itself writes; llama.cpp makes the K-quants of a bf16 file (its LLAMA_FTYPE numbers).
WRITTEN = ("f32", "bf16", "q8_0")
K_QUANTS = {"q6_k": 18, "q5_k_m": 17, "q4_k_m": 15}
NORMAL, CONTROL = 1, 3  # kinds of token


def write_gguf(model: StoredModel, path: Path, kind: FileType) -> None:
    """Write the model, its tokenizer and its chat template. ValueError for a model that does not
    fit, NotInstalled without `gguf` (for K-quants without llama-cpp-python).
    """
    fix = "export it with `nanochat export hf`"
    refuse_extras(model.config, "GGUF", fix)
    if model.tokenizer.pattern not in SPLIT_NAMES:
        raise ValueError(
            f"{model.name}: llama.cpp has no name for how its tokenizer splits text; train one "
            "with `nanochat tok-train --split gguf`"
        )
    if kind in WRITTEN:
        _write(model, path, kind)
        return
    llama_cpp = needed("llama_cpp")
    whole = path.with_name(path.name + ".bf16")
    try:
        _write(model, whole, "bf16")
        _quantize(llama_cpp, whole, path, kind)
    finally:
        whole.unlink(missing_ok=True)


def _write(model: StoredModel, path: Path, kind: FileType) -> None:
    gguf = needed("gguf")
    writer = gguf.GGUFWriter(path, "apertus")
    _write_shape(writer, model.config)
    writer.add_name(f"nanochat {model.directory.name}")
    _write_tokenizer(writer, model)
    types = gguf.GGMLQuantizationType
    files = {"f32": "ALL_F32", "bf16": "MOSTLY_BF16", "q8_0": "MOSTLY_Q8_0"}
    writer.add_file_type(gguf.LlamaFileType[files[kind]])
    for name, tensor in to_gguf(model.config, model.state).items():
        # A copy: the tensors of a checkpoint may be parts of one storage.
        values = tensor.float().contiguous().numpy()
        type_ = _tensor_type(types, kind, values)
        writer.add_tensor(name, gguf.quants.quantize(values, type_), raw_dtype=type_)
    try:
        writer.write_header_to_file()
        writer.write_kv_data_to_file()
        writer.write_tensors_to_file()
    finally:
        writer.close()


def _tensor_type(types: Any, kind: FileType, values: np.ndarray) -> Any:
    if values.ndim < 2 or kind == "f32":
        return types.F32
    if kind == "q8_0" and values.shape[-1] % BLOCK_COLUMNS == 0:
        return types.Q8_0
    return types.BF16


def _write_shape(writer: Any, config: GPTConfig) -> None:
    writer.add_context_length(config.sequence_len)
    writer.add_embedding_length(config.n_embd)
    writer.add_block_count(config.n_layer)
    writer.add_feed_forward_length(4 * config.n_embd)
    writer.add_head_count(config.n_head)
    writer.add_head_count_kv(config.n_kv_head)
    writer.add_key_length(config.head_dim)
    writer.add_value_length(config.head_dim)
    writer.add_vocab_size(config.vocab_size)
    writer.add_layer_norm_rms_eps(NORM_EPS)
    writer.add_rope_dimension_count(config.head_dim)
    writer.add_rope_freq_base(config.rope_base)
    writer.add_xielu_alpha_p([ALPHA_P] * config.n_layer)
    writer.add_xielu_alpha_n([ALPHA_N] * config.n_layer)
    writer.add_xielu_beta([0.0] * config.n_layer)
    writer.add_xielu_eps([-1e-6] * config.n_layer)


def _write_tokenizer(writer: Any, model: StoredModel) -> None:
    tokenizer = model.tokenizer
    special = tokenizer.special_tokens
    spellings = token_spellings(tokenizer)
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre(SPLIT_NAMES[tokenizer.pattern])
    writer.add_token_list(spellings)
    controls = set(special.values())
    writer.add_token_types(
        [CONTROL if number in controls else NORMAL for number in range(len(spellings))]
    )
    writer.add_token_merges([f"{left} {right}" for left, right in merge_pairs(tokenizer)])
    writer.add_bos_token_id(special[BOS])
    writer.add_eos_token_id(special[ASSISTANT_END])
    writer.add_eot_token_id(special[ASSISTANT_END])
    writer.add_pad_token_id(special[BOS])
    writer.add_add_bos_token(True)
    writer.add_chat_template(chat_template(marks=False))


def _quantize(llama_cpp: Any, source: Path, path: Path, kind: str) -> None:
    settings = llama_cpp.llama_model_quantize_default_params()
    settings.ftype = K_QUANTS[kind]
    settings.allow_requantize = True
    failed = llama_cpp.llama_model_quantize(
        str(source).encode(), str(path).encode(), ctypes.byref(settings)
    )
    if failed:
        raise ValueError(f"{path}: llama.cpp could not make a {kind} file")


def read_gguf_tensors(path: Path) -> dict[str, Tensor]:
    """The tensors of a GGUF file in fp32, dequantised."""
    gguf = needed("gguf")
    reader = gguf.GGUFReader(path)
    found = {}
    for tensor in reader.tensors:
        values = gguf.quants.dequantize(tensor.data, tensor.tensor_type)
        shape = [int(size) for size in reversed(tensor.shape)]
        found[tensor.name] = torch.from_numpy(np.array(values, dtype=np.float32)).view(shape)
    return found
