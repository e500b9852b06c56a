"""Tiny random models of both generations, and the slow definition that every answer is compared
with.
"""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch

from nanochat.gpt import GPT, GPTConfig
from nanochat.tokenizer import Tokenizer


@pytest.fixture(scope="session")
def tokenizer() -> Tokenizer:
    return Tokenizer.byte_level()


def build_model(generation: str, vocab_size: int, sequence_len: int = 512, seed: int = 0) -> GPT:
    """Three layers with grouped queries, every weight random (a fresh model's zeroed projections
    would hide errors).
    """
    config = GPTConfig.preset(
        generation,
        sequence_len=sequence_len,
        vocab_size=vocab_size,
        n_layer=3,
        n_head=4,
        n_kv_head=2,
        n_embd=64,
        window_pattern="SSL" if generation == "modern" else "L",
    )
    model = GPT(config)
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            scale = 1.0 if parameter.dim() < 2 or "wte" in name else 1.5 / parameter.size(-1) ** 0.5
            parameter.normal_(0.0, scale, generator=generator)
        model.lm_head.weight.mul_(4)  # peaked logits: no ties for rounding to decide
    return model.eval()


@pytest.fixture(scope="session", params=["classic", "modern"])
def model(request: pytest.FixtureRequest, tokenizer: Tokenizer) -> GPT:
    return build_model(request.param, tokenizer.get_vocab_size())


@pytest.fixture(scope="session")
def classic(tokenizer: Tokenizer) -> GPT:
    return build_model("classic", tokenizer.get_vocab_size())


@pytest.fixture(scope="session")
def naive() -> Callable[[GPT, list[int], int], list[int]]:
    """Greedy continuation by a full forward pass per token."""

    @torch.no_grad()
    def continuation(model: GPT, prompt: list[int], n_tokens: int) -> list[int]:
        ids = list(prompt)
        for _ in range(n_tokens):
            ids.append(int(model(torch.tensor([ids]))[0, -1].argmax()))
        return ids[len(prompt) :]

    return continuation


@pytest.fixture(scope="session")
def build() -> Callable[..., GPT]:
    return build_model
