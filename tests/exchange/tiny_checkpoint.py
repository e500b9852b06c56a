"""Small models with random weights, saved as checkpoints: every tensor is random, because a fresh
model's zeroed projections would hide errors.
"""

from __future__ import annotations

import functools
from pathlib import Path
from typing import Any

import torch

from nanochat.checkpoint_manager import checkpoint_dir, save_checkpoint
from nanochat.gpt import GPT
from nanochat.gpt_config import GPTConfig
from nanochat.tokenizer import Tokenizer

TEXT = (
    "It was the best of times, it was the worst of times; 1234 and 98 more, naïve café 東京 😀.\n\n"
    "def f(x):\n    return x + 1  # it's what they've said\n" * 3
)
SIZES = {"n_layer": 3, "n_head": 4, "n_kv_head": 2, "n_embd": 64, "sequence_len": 512}


@functools.cache
def tiny_tokenizer() -> Tokenizer:
    return Tokenizer.train([TEXT], 340)


def random_state(config: GPTConfig) -> dict[str, torch.Tensor]:
    model, generator = GPT(config), torch.Generator().manual_seed(0)
    with torch.no_grad():
        for parameter in model.parameters():
            std = 0.3 if parameter.dim() < 2 else parameter.size(-1) ** -0.5
            parameter.normal_(0, std, generator=generator)
    return {name: tensor.detach() for name, tensor in model.state_dict().items()}


def save_tiny(preset: str = "classic", tag: str = "d3", stage: str = "sft", **fields: Any) -> Path:
    """A checkpoint under the base directory; returns its folder."""
    tokenizer = tiny_tokenizer()
    config = GPTConfig.preset(
        preset, **{**SIZES, "vocab_size": tokenizer.get_vocab_size(), **fields}
    )
    folder = checkpoint_dir(stage, tag)
    state = random_state(config)
    if preset == "classic":  # the public files keep it so
        state["transformer.wte.weight"] = state["transformer.wte.weight"].bfloat16()
    meta = {"model_config": config.to_dict(), "tokenizer": tokenizer.identity()}
    save_checkpoint(folder, 7, state, None, meta)
    tokenizer.save(folder / "tokenizer")
    return folder
