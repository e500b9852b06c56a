"""What a model costs, in plain arithmetic: parameters, FLOPs, bytes on disk and in the key/value
cache. Nothing here runs a model. What training takes in memory is in training_memory.py.
"""

from __future__ import annotations

from dataclasses import dataclass

from nanochat.gpt_config import SMEAR_CHANNELS, GPTConfig

GIB = 2**30
MASTER_BYTES = 4  # weights, gradients and optimizer states are fp32


@dataclass(frozen=True, kw_only=True)
class Parameters:
    """Counts by the part of the model."""

    matrices: int  # of the blocks: what Muon trains
    head: int
    embedding: int
    value_embeddings: int
    scalars: int

    @property
    def total(self) -> int:
        return self.matrices + self.head + self.embedding + self.value_embeddings + self.scalars

    @property
    def multiplied(self) -> int:
        """Those that every token is multiplied with; the rest are rows that it looks up."""
        return self.matrices + self.head

    def __str__(self) -> str:
        sizes = f"{millions(self.total)} parameters, {millions(self.multiplied)} of them multiplied"
        if not self.value_embeddings:
            return sizes
        return f"{sizes} ({millions(self.value_embeddings)} are tables of values)"

    @property
    def state_elements(self) -> int:
        """Numbers that the optimizer keeps: one for each element trained by Muon, two by AdamW."""
        return self.matrices + 2 * (self.total - self.matrices)


def millions(count: int) -> str:
    """`561M`; a few as they are."""
    return f"{count / 1e6:,.0f}M" if count >= 10**7 else f"{count:,}"


def count_parameters(config: GPTConfig) -> Parameters:
    width, kv = config.n_embd, config.kv_dim
    gated = sum(config.has_value_embedding(layer) for layer in range(config.n_layer))
    matrices = config.n_layer * (2 * width * width + 2 * width * kv + 8 * width * width)
    matrices += gated * config.value_gate_channels * config.n_kv_head
    table = config.padded_vocab_size * width
    scalars = 2 * config.n_layer * config.residual_mixing + config.backout
    scalars += (SMEAR_CHANNELS + 1) * config.smear
    return Parameters(
        matrices=matrices,
        head=table,
        embedding=table,
        value_embeddings=gated * config.padded_vocab_size * kv,
        scalars=scalars,
    )


def flops_per_token(config: GPTConfig, seq_len: int | None = None) -> int:
    """Training FLOPs of a token: 6 for each matrix element, 12 * heads * head_dim * visible keys
    for each layer.
    """
    counts, tokens = count_parameters(config), seq_len or config.sequence_len
    windows = [config.window(layer) for layer in range(config.n_layer)]
    keys = sum(tokens if window < 0 else min(window, tokens) for window in windows)
    return 6 * counts.multiplied + 12 * config.n_embd * keys


def checkpoint_bytes(config: GPTConfig, with_optimizer: bool = True) -> int:
    """Size of one checkpoint on disk: fp32 weights and, for resuming, the optimizer states."""
    counts = count_parameters(config)
    return MASTER_BYTES * (counts.total + (counts.state_elements if with_optimizer else 0))


def kv_cache_bytes(config: GPTConfig, n_tokens: int, element_bytes: int = 2) -> int:
    """Keys and values of `n_tokens` positions over all layers and sequences."""
    return 2 * config.n_layer * config.kv_dim * n_tokens * element_bytes
