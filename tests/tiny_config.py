"""The shape of models that tests train and serve: every extra of the modern preset, in small."""

from __future__ import annotations

from nanochat.gpt_config import GPTConfig


def tiny_config(
    vocab_size: int, *, sequence_len: int = 64, n_layer: int = 2, n_embd: int = 32
) -> GPTConfig:
    """As many heads as layers, full windows."""
    return GPTConfig.preset(
        "modern",
        sequence_len=sequence_len,
        vocab_size=vocab_size,
        n_layer=n_layer,
        n_head=n_layer,
        n_kv_head=n_layer,
        n_embd=n_embd,
        window_pattern="L",
    )
