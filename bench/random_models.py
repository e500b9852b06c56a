"""Models and tokenizers without training: their speed is that of a trained model of the shape."""

from __future__ import annotations

from typing import Literal

import torch

from nanochat.engine.quantize import quantize_int8
from nanochat.gpt import GPT, GPTConfig
from nanochat.tokenizer import Tokenizer

KINDS = ("fp32", "bf16", "int8")


def wide_tokenizer(vocab_size: int) -> Tokenizer:
    """A tokenizer with as many tokens as the model, so that sampling sees them all: bytes, then
    pairs of bytes.
    """
    ranks = {bytes([byte]): byte for byte in range(256)}
    pairs = (bytes([a, b]) for a in range(256) for b in range(256))
    special = len(Tokenizer.byte_level().special_tokens)
    while len(ranks) < vocab_size - special:
        ranks[next(pairs)] = len(ranks)
    names = Tokenizer.byte_level().special_tokens
    return Tokenizer(ranks, {name: len(ranks) + at for at, name in enumerate(names)})


def random_model(
    depth: int, vocab_size: int, generation: Literal["classic", "modern"], context: int = 2048
) -> GPT:
    """A model of the given depth with random weights: width depth * 64, rounded up to heads of
    128."""
    heads = -(-depth * 64 // 128)
    model = GPT(
        GPTConfig.preset(
            generation,
            sequence_len=context,
            vocab_size=vocab_size,
            n_layer=depth,
            n_head=heads,
            n_kv_head=heads,
            n_embd=heads * 128,
        )
    )
    model.init_weights()
    return model.requires_grad_(False).eval()


@torch.no_grad()
def spell_letters(model: GPT) -> GPT:
    """Let a model with random weights write lower-case letters alone, so that its answers run to
    their limit.
    """
    weight, rows = model.lm_head.weight, slice(ord("a"), ord("z") + 1)
    letters = torch.randn(
        rows.stop - rows.start, weight.size(1), generator=torch.Generator().manual_seed(0)
    )
    weight.zero_()
    weight[rows] = letters.to(weight)
    return model


def convert(model: GPT, kind: str) -> GPT:
    """The model in one of KINDS, in place; each can be made from those before it."""
    dtype = torch.float32 if kind == "fp32" else torch.bfloat16
    model.to(dtype)
    model.compute_dtype = dtype
    return quantize_int8(model) if kind == "int8" else model
