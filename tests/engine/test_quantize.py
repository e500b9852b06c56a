"""int8 weights: each row rounded to its own scale, every matrix and the head covered."""

from __future__ import annotations

import torch

from bench.decode import weight_bytes_read
from nanochat.engine.quantize import Int8Linear, quantize_int8, quantize_rows
from nanochat.gpt import GPT, Linear
from nanochat.gpt_config import GPTConfig


def test_rows_are_rounded_to_their_own_scale():
    weight = torch.randn(50, 96) * torch.logspace(-3, 3, 50)[:, None]
    weight[7] = 0
    rounded, scale = quantize_rows(weight)
    assert rounded.dtype == torch.int8 and int(rounded.abs().max()) == 127
    assert bool(((rounded * scale[:, None] - weight).abs() <= scale[:, None] / 2 * 1.001).all())


def test_quantisation_covers_every_matrix_and_the_head(build, tokenizer):
    model = build("modern", tokenizer.get_vocab_size())
    before = weight_bytes_read(model)
    quantize_int8(model)
    assert isinstance(model.lm_head, Int8Linear)
    left = [name for name, module in model.named_modules() if isinstance(module, Linear)]
    assert left == ["transformer.h.0.attn.ve_gate", "transformer.h.2.attn.ve_gate", "smear_gate"]
    assert weight_bytes_read(model) < before / 3.5
    ids = torch.randint(0, 256, (1, 64))
    exact = build("modern", tokenizer.get_vocab_size())(ids)
    assert (model(ids) - exact).abs().mean() < 0.05 * exact.abs().mean()


def test_gates_that_read_many_channels_keep_their_precision_too():
    config = GPTConfig(
        n_layer=2,
        vocab_size=64,
        n_embd=64,
        n_head=2,
        n_kv_head=2,
        value_embeddings=True,
        value_gate_channels=32,
    )
    model = quantize_int8(GPT(config))
    assert type(model.blocks[1].attn.ve_gate) is Linear
